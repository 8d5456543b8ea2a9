// Package privileges proves that the driver's programs may do what they need and
// nothing else.
//
// A scenario has every program use everything that the chart lets it, on a
// cluster whose API server keeps an audit log. From that log the tests learn
// which rights were used: one that nobody used is one too many, and a request
// that was refused shows that one is missing. The containers are looked at as
// rendered, and the plugin without privileges runs on the cluster.
//
// With PRIVILEGES_MUTATE=1 each right is also taken away in turn, and the step
// of the scenario that uses it has to be refused. Another value is a
// regular expression that chooses rights, such as "controller: get pods".
package privileges
