// Package explain tells users why their claim waits, in words: how many nodes
// and devices there are, how many of them each part of the claim leaves over,
// and what fails at the end. [Analyst] finds the words for one claim and one
// view of the fleet; [Explainer] does so for each claim that has waited a while,
// and writes an event. While nothing waits it does nothing.
package explain
