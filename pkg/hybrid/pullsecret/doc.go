// Package pullsecret copies a Secret with the credentials of a registry to chosen
// namespaces and keeps the copies in step. It only ever asks for Secrets of one
// name, and never changes one that it has not made.
package pullsecret
