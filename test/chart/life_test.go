package chart

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	gpusPerNode = 8
	release     = harness.Namespace // the documents call both so
	// mostAway is how long the webhook may not be asked during an update: the API
	// server may still call a replica that has just ended, and goes on without.
	mostAway = 5 * time.Second
)

// simulated is what this cluster needs beyond what the documents say.
func simulated(args []string) []string {
	return append(args, "--set", "simulate=dgx-h200,driver.enableSRIOV=true", "--wait", "--timeout", patience.String())
}

// A person who follows the documents, on a cluster with running pods.
func TestLife(t *testing.T) {
	s := newSite(t)
	before := s.before(harness.Namespace)
	s.must(cluster.TagImage(s.ctx, image+":"+tag, image+":"+other))

	s.mustHelm(simulated(s.documented("docs/chart.md", "install"))...)
	_, err := cluster.WaitDevices(s.patient(), gpusPerNode)
	s.must(err)
	s.kubectl("create", "namespace", users)
	t.Cleanup(func() { s.kubectl("delete", "namespace", users, "--ignore-not-found", "--wait=false") })
	s.must(cluster.WaitNamespace(s.patient(), users))
	s.must(cluster.Apply(s.ctx, users, "examples/gpu-test-job.yaml"))
	_, err = cluster.WaitJob(s.patient(), users, "gpu-test")
	s.must(err)
	pods := s.use()
	s.wantUndisturbed(pods)

	s.update("upgrade", pods, func() {
		s.mustHelm(append(s.documented("docs/chart.md", "upgrade"), "--wait", "--timeout", patience.String())...)
	})
	if images := s.images(); !slices.Equal(images, []string{image + ":" + other}) {
		t.Errorf("after the upgrade pods run %q", images)
	}
	s.update("rollback", pods, func() {
		s.mustHelm(append(s.documented("docs/chart.md", "rollback"), "--wait", "--timeout", patience.String())...)
	})
	if images := s.images(); !slices.Equal(images, []string{image + ":" + tag}) {
		t.Errorf("after the rollback pods run %q", images)
	}

	s.refused(pods)
	s.withoutSRIOV(pods)
	s.quit("gpu", "gpu-vf")
	s.kubectl("delete", "namespace", users, "--wait")
	s.mustHelm(s.documented("docs/chart.md", "uninstall")...)
	s.wantNothingLeft(before)
}

// update changes the release while pods run, and fails the test if that disturbs
// anybody.
func (s *site) update(what string, pods map[string]*corev1.Pod, change func()) {
	s.t.Helper()
	authority := s.authority()
	absence, err := cluster.MeasureAbsence(s.ctx, gpusPerNode)
	s.must(err)
	admission := s.watchAdmission()
	change()
	s.must(cluster.WaitDriver(s.patient()))
	absent, away := absence.Stop(), admission.stop()
	s.t.Logf("%s: the API was without the node's devices for %v, and the webhook was not asked for %v", what, absent, away)
	if absent > 0 {
		s.t.Errorf("%s: the API was without the node's devices for %v", what, absent)
	}
	if away > mostAway {
		s.t.Errorf("%s: the webhook was not asked for %v", what, away)
	}
	if now := s.authority(); now != authority || authority == "" {
		s.t.Errorf("%s: the authority of the webhook has changed from %q to %q", what, authority, now)
	}
	s.wantUndisturbed(pods)
}

// images are those that the driver's pods run.
func (s *site) images() []string {
	s.t.Helper()
	out := s.kubectl("get", "pods", "-n", harness.Namespace, "-l", "app.kubernetes.io/instance="+release,
		"--field-selector=status.phase=Running", "-o", `jsonpath={range .items[*]}{.metadata.deletionTimestamp}{"|"}{.spec.containers[0].image}{"\n"}{end}`)
	var images []string
	for line := range strings.Lines(out) {
		ended, image, _ := strings.Cut(strings.TrimSpace(line), "|")
		if ended == "" {
			images = append(images, image)
		}
	}
	slices.Sort(images)
	return slices.Compact(images)
}

// refused uninstalls while pods use devices: that is refused, says which claims
// are in the way, and leaves everything as it is.
func (s *site) refused(pods map[string]*corev1.Pod) {
	s.t.Helper()
	absence, err := cluster.MeasureAbsence(s.ctx, gpusPerNode)
	s.must(err)
	out, err := s.helm(s.documented("docs/chart.md", "uninstall")...)
	if err == nil {
		s.t.Fatal("uninstalled while claims are in use")
	}
	keep := "helm rollback " + release + " "
	for _, want := range []string{
		"in use by 3 claims or pods", users + "/gpu-device-", " on dgx-0, used by pod gpu", users + "/vf-device-", "used by pod vf",
		users + "/gpu-vf-device-", keep,
	} {
		if !strings.Contains(out, want) {
			s.t.Errorf("helm does not print %q:\n%s", want, out)
		}
	}
	if absent := absence.Stop(); absent > 0 {
		s.t.Errorf("a refused uninstall took devices out of the API for %v", absent)
	}
	s.wantUndisturbed(pods)
	// It can be gone on with, by the command that was printed.
	_, command, _ := strings.Cut(out, keep)
	revision, _, _ := strings.Cut(command, " ")
	s.mustHelm("rollback", release, revision, "--namespace", harness.Namespace, "--wait", "--timeout", patience.String())
	s.wantUndisturbed(pods)
}

// withoutSRIOV switches VFs off while pods have some. These keep theirs, and end
// as ever.
func (s *site) withoutSRIOV(pods map[string]*corev1.Pod) {
	s.t.Helper()
	s.mustHelm("upgrade", release, source, "--namespace", harness.Namespace, "--reuse-values", "--set", "driver.enableSRIOV=false", "--wait", "--timeout", patience.String())
	s.must(cluster.WaitDriver(s.patient()))
	s.wantUndisturbed(pods)
	s.quit("vf")
}

// The guide's command, with a release of another name in kube-system. There is no
// GPU here, so that nothing is published.
func TestTheGuidesCommand(t *testing.T) {
	s := newSite(t)
	before := s.before("kube-system")
	s.mustHelm("install", "dra-driver", source, "--namespace", "kube-system",
		"--set", "driver.name=eks-hybrid-dra", "--set", "driver.enableGPU=true", "--wait", "--timeout", patience.String())
	s.must(cluster.WaitDaemonSet(s.patient(), "kube-system", "dra-driver-eks-hybrid-dra-kubelet-plugin"))
	if classes := s.kubectl("get", "deviceclasses", "-o", "name"); !strings.Contains(classes, "/gpu.eks-hybrid-dra\n") {
		t.Errorf("there is no class of GPUs: %s", classes)
	}
	out, err := s.helm("upgrade", "dra-driver", source, "--namespace", "kube-system", "--reuse-values", "--set", "driver.enableCPU=true")
	if err == nil || !strings.Contains(out, "driver.enableCPU") {
		t.Errorf("CPUs are not refused clearly: %v", err)
	}
	s.besideAnother()
	// Those of the controller that come with the webhook are not ready without a
	// certificate, and those that lead until then make none.
	for _, enabled := range []string{"false", "true"} {
		s.mustHelm("upgrade", "dra-driver", source, "--namespace", "kube-system", "--reuse-values", "--set", "webhook.enabled="+enabled, "--wait", "--timeout", patience.String())
	}
	s.mustHelm("uninstall", "dra-driver", "--namespace", "kube-system")
	s.wantNothingLeft(before)
}

// besideAnother tries what would leave something behind, or never work, beside the
// release that is there.
func (s *site) besideAnother() {
	s.t.Helper()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a second release in the namespace": {[]string{"install", "second", source, "--set", "driver.name=second"}, `namespace "kube-system" has the release "dra-driver" of this chart already`},
		"another name for the driver":       {[]string{"upgrade", "dra-driver", source, "--set", "driver.name=second"}, `driver.name is "second", but the release serves the driver "eks-hybrid-dra"`},
	} {
		out, err := s.helm(append(test.args, "--namespace", "kube-system")...)
		if err == nil || !strings.Contains(out, test.want) {
			s.t.Errorf("%s: got %v, want %q in\n%s", name, err, test.want, out)
		}
	}
}
