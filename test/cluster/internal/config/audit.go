package config

import (
	"fmt"
	"os"
	"path/filepath"
)

// AuditLog has one line of JSON for each audited request.
func (s State) AuditLog() string { return filepath.Join(s.Logs(), "audit.log") }

// auditPolicy is the file in which the API server finds its audit policy.
func (s State) auditPolicy() string { return s.Path("etc", "audit-policy.yaml") }

// writeAuditPolicy writes the API server's audit policy, if there is one.
func writeAuditPolicy(c *Config, s State) error {
	if c.AuditPolicy == "" {
		return nil
	}
	if err := os.WriteFile(s.auditPolicy(), []byte(c.AuditPolicy), 0o600); err != nil {
		return fmt.Errorf("write the audit policy: %w", err)
	}
	return nil
}

// auditArgs are the API server's arguments about auditing.
func auditArgs(c *Config, s State) []string {
	if c.AuditPolicy == "" {
		return nil
	}
	return []string{"--audit-policy-file=" + s.auditPolicy(), "--audit-log-path=" + s.AuditLog()}
}
