package registrytrust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/containerdconfig"
)

// Options are what an Agent needs.
type Options struct {
	// ConfigDir is the folder with ConfigFile and the certificates.
	ConfigDir string
	// CertsDir is containerd's folder with the settings of registries, at the
	// same path as on the host.
	CertsDir string
	// ContainerdConfig is containerd's configuration, at the same path as on the
	// host. Where it is empty, the configuration is not looked at.
	ContainerdConfig string
	// Interval is how long after one round the next one begins if nothing
	// changes, and Retry the same after a round that found problems.
	Interval, Retry time.Duration
	// NodeName is the node that events are about.
	NodeName string
	Events   record.EventRecorder
	Metrics  *Metrics
}

// Agent keeps what containerd trusts in step with the configuration.
type Agent struct {
	options Options
	store   Store
	told    *teller

	mu sync.Mutex
	// applied is nil once a configuration was read and written, as far as each
	// registry let it.
	applied error
}

// New returns an agent.
func New(options Options) *Agent {
	return &Agent{
		options: options,
		store:   Store{Dir: options.CertsDir},
		told:    newTeller(options.NodeName, options.Events),
		applied: errors.New("the first round has not ended yet"),
	}
}

// Healthy implements monitoring.Check. A round always ends, since all that it
// waits for is bounded, and the agent itself ends where it cannot go on.
func (a *Agent) Healthy(context.Context) error { return nil }

// Ready implements monitoring.Check: the configuration could be read and
// containerd's folder written. What is wrong with one registry does not count,
// since a node that lacks one goes on serving the others.
func (a *Agent) Ready(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applied
}

// Round applies the configuration once, checks every registry, and reports.
func (a *Agent) Round(ctx context.Context) Report {
	report := Report{}
	a.lookAtContainerd(&report)
	config, files, err := a.load()
	if err == nil {
		var gone error
		report.Registries, gone = a.apply(ctx, config, files)
		err = gone
	}
	a.mu.Lock()
	a.applied = err
	a.mu.Unlock()
	if err != nil {
		report.Problems = append(report.Problems, asProblem(err, ReasonWriteFailed))
	}
	a.check(ctx, &report)
	a.options.Metrics.last.Store(&report)
	a.told.tell(ctx, report)
	return report
}

func (a *Agent) lookAtContainerd(report *Report) {
	found := containerdconfig.Look(a.options.ContainerdConfig, a.options.CertsDir)
	report.ConfigPath = found.State
	reasons := map[containerdconfig.State]Reason{
		containerdconfig.Unset:     ReasonConfigPathUnset,
		containerdconfig.Elsewhere: ReasonConfigPathElsewhere,
		containerdconfig.List:      ReasonConfigPathList,
	}
	if reason, ok := reasons[found.State]; ok {
		report.Problems = append(report.Problems, problemf(reason, "%s", found.Message))
	}
	a.told.configPath(found)
}

// load reads the configuration, and returns how to read the files beside it.
func (a *Agent) load() (*Config, func(name string) ([]byte, error), error) {
	dir := a.options.ConfigDir
	// kubelet replaces the target of this link when the ConfigMap changes. All
	// files must come from one version.
	if target, err := filepath.EvalSymlinks(filepath.Join(dir, dataLink)); err == nil {
		dir = target
	}
	content, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, nil, problemf(ReasonConfigInvalid, "read the configuration: %v: see that the ConfigMap or Secret has the key %s", err, ConfigFile)
	}
	config, err := ParseConfig(content)
	if err != nil {
		return nil, nil, problemf(ReasonConfigInvalid, "the configuration is not used, and what was trusted before stays: %v", err)
	}
	return config, func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }, nil
}

// apply writes what the configuration asks for and removes what it does not. A
// registry with a mistake keeps what it had.
func (a *Agent) apply(ctx context.Context, config *Config, read func(string) ([]byte, error)) ([]RegistryReport, error) {
	log := klog.FromContext(ctx)
	reports := make([]RegistryReport, 0, len(config.Registries))
	wanted := map[string]bool{}
	var failed error
	for _, registry := range config.Registries {
		wanted[FolderOf(registry.Host)] = true
		report := RegistryReport{Host: registry.Host}
		if err := a.write(ctx, registry, read, &report); err != nil {
			problem := asProblem(err, ReasonWriteFailed)
			report.Problems = append(report.Problems, problem)
			if problem.Reason == ReasonWriteFailed {
				failed = errors.Join(failed, err)
			}
		}
		reports = append(reports, report)
	}
	written, err := a.store.Written()
	if err != nil {
		return reports, errors.Join(failed, err)
	}
	for _, folder := range written {
		if wanted[folder] {
			continue
		}
		if err := a.store.Remove(folder); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		log.Info("No longer configured: what was written for the registry is removed", "folder", filepath.Join(a.options.CertsDir, folder))
	}
	return reports, failed
}

func (a *Agent) write(ctx context.Context, registry Registry, read func(string) ([]byte, error), report *RegistryReport) error {
	var files []caFile
	for _, name := range registry.CAFiles {
		content, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			return problemf(ReasonCAMissing, "%s is to be trusted for %s but is not there: add it to the ConfigMap or Secret, or name another file in caFiles", name, registry.Host)
		}
		if err != nil {
			return fmt.Errorf("read the certificates of %s: %w", registry.Host, err)
		}
		files = append(files, caFile{name: name, content: content})
	}
	bundle, err := newBundle(files, time.Now())
	if err != nil {
		return err
	}
	if bundle.Expired != nil {
		report.Problems = append(report.Problems, bundle.Expired)
	}
	changed, err := a.store.Put(registry.Host, bundle.PEM)
	if err != nil {
		return err
	}
	if changed {
		klog.FromContext(ctx).Info("Certificates written, which containerd uses from the next pull on",
			"registry", registry.Host, "folder", filepath.Join(a.options.CertsDir, FolderOf(registry.Host)), "firstExpires", firstExpiry(bundle.PEM))
	}
	return nil
}

// check shakes hands with every registry at the same time.
func (a *Agent) check(ctx context.Context, report *Report) {
	var wg sync.WaitGroup
	for i := range report.Registries {
		wg.Go(func() {
			r := &report.Registries[i]
			bundle, err := a.store.Bundle(r.Host)
			// Without a file of ours there is a problem already that says why.
			if err == nil && bundle != nil {
				r.CAExpires = firstExpiry(bundle)
				r.CertificateExpires, err = handshake(ctx, r.Host, bundle)
				r.Trusted = err == nil
			}
			if err != nil && ctx.Err() == nil {
				r.Problems = append(r.Problems, asProblem(err, ReasonHandshakeFailed))
			}
		})
	}
	wg.Wait()
}

// Remove removes everything that was ever written into the folder.
func Remove(ctx context.Context, certsDir string) error {
	store := Store{Dir: certsDir}
	written, err := store.Written()
	if err != nil {
		return err
	}
	var errs []error
	for _, folder := range written {
		if err := store.Remove(folder); err != nil {
			errs = append(errs, err)
			continue
		}
		klog.FromContext(ctx).Info("What was written for the registry is removed", "folder", filepath.Join(certsDir, folder))
	}
	return errors.Join(errs...)
}
