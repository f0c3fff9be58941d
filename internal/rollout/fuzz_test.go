package rollout

import (
	"testing"

	"k3splan/internal/receipt"
)

// Whatever hosts and servers answer, reading it ends without a panic, and what is not understood is no
// good news.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"system /nix/store/a\nbooted /nix/store/a\nprofile /nix/store/a\ngeneration system-1-link\nkernels a b\nlan yes\netcd olaf-s\nattempt {}\nreceipt\n{\"version\": 2}",
		"readyz ok\netcd_server_has_leader 1\netcd_server_is_learner 0\nversion v1\nmember 1, started, olaf-s-1a2b3c4d, x, y, false\nmember 2, unstarted, , x, , true\n",
		"{\"items\":[{\"metadata\":{\"name\":\"a\"}}]}\n\nleases\n{\"items\":[]}",
		`{"version": 2, "plan": "H4sIAAAAAAAA/w==", "secrets": {"kinds": {"server-token": "x"}}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := parseObserved(text); err == nil && o.Receipt != nil {
			_, _ = o.Receipt.Plan.Plan()
			_ = o.Receipt.HostName("olaf") + o.Receipt.ServerName() + o.Receipt.AgentName()
		}
		if h := parseHealth(text); !h.Ready && h.Why == "" {
			t.Fatal("not ready without a reason")
		}
		_, _ = parseNodes(text)
		_, _ = receipt.ForgetScript([]byte(text), serverToken)
		_ = receipt.ParseAttempt(text)
	})
}
