package run

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a shell makes of the words is what was meant.
func TestWordsSurviveAShell(t *testing.T) {
	texts := []string{"", " ", "olaf", "a b", "it's", `"$HOME"`, "`id`", "~", "~root", "a*", `back\slash`, "!x", "{a,b}", "a=b", "#no", "line\nbreak", "'", "ü", ">f", "a;b", "SHA256:a+/b", "%d", "!!"}
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+Words(texts...)).Output()
	require.NoError(t, err)
	want := ""
	for _, text := range texts {
		want += text + "\x00"
	}
	require.Equal(t, want, string(out))
}

func TestPlainWordsStayAsTheyAre(t *testing.T) {
	require.Equal(t, "rm /srv/my-rack/secrets/all.pub", Words("rm", "/srv/my-rack/secrets/all.pub"))
	require.Equal(t, "'my rack'", Word("my rack"))
}
