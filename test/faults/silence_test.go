package faults

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// line is the way of a plugin to the API server, which can be cut.
type line struct {
	t      *testing.T
	server string

	mu       sync.Mutex
	listener net.Listener
	address  string
	isSilent bool
	conns    map[net.Conn]bool
}

// newLine gives the node a way of its own to the API server.
func newLine(n *node) *line {
	n.t.Helper()
	config, err := clientcmd.LoadFromFile(n.kubeconfig)
	if err != nil {
		n.t.Fatal(err)
	}
	cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]
	server, err := url.Parse(cluster.Server)
	if err != nil {
		n.t.Fatal(err)
	}
	l := &line{t: n.t, server: server.Host, address: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	if server.Port() == "" {
		l.server = net.JoinHostPort(server.Hostname(), "443")
	}
	l.connect()
	n.t.Cleanup(l.refuse)
	cluster.TLSServerName = server.Hostname()
	server.Host = l.address
	cluster.Server = server.String()
	n.kubeconfig = filepath.Join(n.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, n.kubeconfig); err != nil {
		n.t.Fatal(err)
	}
	return l
}

// connect makes the line work. Connections of before are lost, as they are
// when a firewall or a router forgets them.
func (l *line) connect() {
	l.t.Helper()
	l.refuse()
	listener, err := net.Listen("tcp", l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.address, l.isSilent = listener, listener.Addr().String(), false
	go l.accept(listener)
}

// refuse cuts the line such that whoever uses it notices.
func (l *line) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_ = l.listener.Close() // nothing depends on it
		l.listener = nil
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

// silence cuts the line such that nobody notices: nothing arrives any more.
func (l *line) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isSilent = true
}

func (l *line) silent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isSilent
}

func (l *line) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.server)
		if err != nil {
			_ = client.Close() // which the client sees
			continue
		}
		l.mu.Lock()
		l.conns[client], l.conns[server] = true, true
		l.mu.Unlock()
		go l.copy(server, client)
		go l.copy(client, server)
	}
}

// copy passes on what arrives, or swallows it while the line is silent.
func (l *line) copy(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		read, err := from.Read(buffer)
		if err == nil && !l.silent() {
			_, err = to.Write(buffer[:read])
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// The control plane is out of reach, whether connections fail or nothing ever
// answers: kubelet gets its claims unprepared at once, also by a plugin that
// was started meanwhile, and nothing is released because nobody answers.
// Afterwards all agree again.
func TestControlPlaneOutOfReach(t *testing.T) {
	for name, cut := range map[string]func(*line){"refused": (*line).refuse, "silent": (*line).silence} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			line := newLine(n)
			stays, deleted, ended, ended2 := n.newClaim("gpu-0"), n.newClaim("gpu-1"), n.newClaim("gpu-2"), n.newClaim("gpu-3")
			p := n.start(serving())
			for _, c := range []claim{stays, deleted, ended, ended2} {
				p.mustPrepare(c)
			}
			eventually(t, "ready", p.ready)
			cut(line)
			n.forget(deleted) // elsewhere, where there is a control plane
			p.mustUnprepareQuickly(ended)
			p.kill()

			p = n.start(serving())
			p.mustUnprepareQuickly(ended2)
			// The new instance asks about its claims and gets no answer.
			p.waitLog("Could not tell whether a claim is abandoned, its devices stay with it")
			for _, c := range []claim{stays, deleted} {
				if !exists(n.record(c)) {
					t.Fatalf("claim %s was released while the API server was out of reach", c)
				}
			}
			if err := p.ready(); err == nil {
				t.Error("ready although nothing can be published")
			}
			if err := p.healthy(); err != nil {
				t.Errorf("to be restarted although nothing is wrong with it: %v", err)
			}
			if !p.running() {
				t.Fatal("the plugin ended")
			}

			line.connect()
			eventually(t, "ready", p.ready)
			// The API tells now that the claim is gone, so its device is free.
			next := n.newClaim("gpu-1")
			p.mustPrepare(next)
			p.mustPrepare(stays)
			p.mustUnprepare(next)
			p.mustUnprepare(stays)
			n.mustBeClean()
			p.mustGiveAll()
			p.stop()
			n.mustBeClean()
		})
	}
}

// mustUnprepareQuickly allows for a slow machine, not for a wait for anything.
func (p *plugin) mustUnprepareQuickly(c claim) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Second)
	defer cancel()
	if err := p.kubelet.UnprepareOne(ctx, c.Claim); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugin) ready() error   { return p.get("readyz", io.Discard) }
func (p *plugin) healthy() error { return p.get("healthz", io.Discard) }

// get reads one of the plugin's HTTP endpoints.
func (p *plugin) get(endpoint string, to io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/"+endpoint, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return errors.New(endpoint + " answers " + response.Status)
	}
	_, err = io.Copy(to, response.Body)
	return err
}
