package certificates

import (
	"time"
)

// Keys of the Secret.
const (
	keyCert     = "tls.crt" // what is served, followed by its authority
	keyKey      = "tls.key"
	keyNextCert = "next.crt" // what will be served once it is trusted
	keyNextKey  = "next.key"
	keyBundle   = "ca.crt" // what clients are to trust
)

// trustedFor is for how long a certificate is trusted before it is served. Every
// API server has heard of the new authority by then.
const trustedFor = time.Minute

// plan is what is to be done about the certificates.
type plan struct {
	// secret is what the Secret is to hold; nil if it may stay as it is.
	secret map[string][]byte
	// why is why, for the log.
	why string
	// bundle is what the API server is to trust. It is set if secret is nil.
	bundle []byte
	// again is when to look again if nothing changes.
	again time.Time
}

// next decides about the next step. injected returns whether the API server
// trusts a pair; it is asked of its informer, and not remembered.
func (c *Certificates) next(data map[string][]byte, injected func(*pair) bool, now time.Time) (plan, error) {
	current, err := c.usable(data[keyCert], data[keyKey], now)
	following, _ := c.usable(data[keyNextCert], data[keyNextKey], now)
	switch {
	case err != nil && following != nil:
		return c.promote(data, following, "no usable certificate is served: "+err.Error(), now), nil
	case err != nil:
		made, makeErr := makePair(c.names, c.options.Lifetime)
		if makeErr != nil {
			return plan{}, makeErr
		}
		return c.promote(data, made, err.Error(), now), nil
	case following == nil && !now.Before(current.renewAt()):
		made, err := makePair(c.names, c.options.Lifetime)
		if err != nil {
			return plan{}, err
		}
		return plan{why: "two thirds of the certificate's life are over", secret: map[string][]byte{
			keyCert: current.cert, keyKey: current.key, keyNextCert: made.cert, keyNextKey: made.key,
			keyBundle: authorities(data[keyBundle], now, current, made),
		}}, nil
	case following != nil && injected(following) && !now.Before(following.made().Add(trustedFor)):
		return c.promote(data, following, "the new certificate is trusted", now), nil
	}
	p := plan{bundle: authorities(data[keyBundle], now, current, following), again: current.renewAt()}
	if following != nil {
		p.again = following.made().Add(trustedFor)
		if !now.Before(p.again) { // the API server does not trust it yet: its news wakes us
			p.again = current.leaf.NotAfter
		}
	}
	return p, nil
}

func (c *Certificates) promote(data map[string][]byte, p *pair, why string, now time.Time) plan {
	return plan{why: why, secret: map[string][]byte{
		keyCert: p.cert, keyKey: p.key, keyBundle: authorities(data[keyBundle], now, p),
	}}
}

func (c *Certificates) usable(certPEM, keyPEM []byte, now time.Time) (*pair, error) {
	p, err := readPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	if err := p.usable(c.names, now); err != nil {
		return nil, err
	}
	return p, nil
}
