package remote

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// ownConfig is the user's own ssh configuration: the files that ssh reads by itself, or the one that the
// user has named for Colmena.
type ownConfig struct {
	// includes are arguments for Include.
	includes []string
	// args make ssh read exactly these files.
	args []string
	// specific is how Host lines name single hosts; with conditional, Match lines may do so too.
	specific    []hostPattern
	conditional bool
}

// usersConfig looks at the user's configuration. file is the one that k3splan writes, which must not
// include itself.
func usersConfig(file string) ownConfig {
	named := os.Getenv("SSH_CONFIG_FILE")
	if absolute, err := filepath.Abs(named); named != "" && err == nil && absolute != file && !strings.ContainsAny(absolute, "\"\n\r") {
		own := ownConfig{includes: []string{`"` + globEscape.Replace(absolute) + `"`}, args: []string{"-F", absolute}}
		own.read(absolute, filepath.Join(home(), ".ssh"), 0)
		return own
	}
	own := ownConfig{includes: []string{"~/.ssh/config", "/etc/ssh/ssh_config"}}
	own.read(filepath.Join(home(), ".ssh", "config"), filepath.Join(home(), ".ssh"), 0)
	own.read("/etc/ssh/ssh_config", "/etc/ssh", 0)
	return own
}

// globEscape is for Include, which expands patterns.
var globEscape = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`)

// home is the one that ssh uses, which is not $HOME.
func home() string {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	dir, _ := os.UserHomeDir()
	return dir
}

// maxIncludes is ssh's own limit of depth.
const maxIncludes = 16

// read finds out which hosts a configuration file has blocks for. It need not understand everything: it
// only saves asking ssh about hosts for which the answer is known. base is the folder of relative
// includes.
func (o *ownConfig) read(file, base string, depth int) {
	content, err := files.Read(file)
	if err != nil || strings.HasPrefix(string(content), inclusionHeader) {
		return // what k3splan itself has printed has only names, addresses and keys of hosts
	}
	for line := range strings.Lines(string(content)) {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n=\"", r) })
		if len(words) < 2 {
			continue
		}
		switch keyword, rest := strings.ToLower(words[0]), words[1:]; keyword {
		case "host":
			for _, pattern := range rest {
				if pattern != "*" && !strings.HasPrefix(pattern, "!") {
					o.specific = append(o.specific, compilePattern(pattern))
				}
			}
		case "match":
			o.conditional = o.conditional || len(rest) > 1 || !strings.EqualFold(rest[0], "all")
		case "include":
			for _, pattern := range rest {
				o.include(pattern, base, depth)
			}
		}
	}
}

func (o *ownConfig) include(pattern, base string, depth int) {
	if strings.ContainsAny(pattern, "%$\\") || depth >= maxIncludes {
		o.conditional = true // ssh itself has to find out
		return
	}
	if rest, ok := strings.CutPrefix(pattern, "~/"); ok {
		pattern = filepath.Join(home(), rest)
	} else if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(base, pattern)
	}
	found, _ := filepath.Glob(pattern)
	for _, file := range found {
		o.read(file, base, depth+1)
	}
}

type hostPattern = *regexp.Regexp

// compilePattern compiles a pattern of ssh, with * and ? (ssh_config(5), PATTERNS).
func compilePattern(pattern string) hostPattern {
	quoted := regexp.QuoteMeta(strings.ToLower(pattern))
	return regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(quoted) + "$")
}

// noHost is a name for which no configuration has a block of its own.
const noHost = "k3splan-asks-for-the-defaults"

// settings returns, by host, the lines that the user's configuration has for the host's name and alias,
// beyond those for every host. Programs that call the host by its address would miss them. Where they
// are is the plan's matter, and so is by which key they are known.
func (o ownConfig) settings(hosts []*plan.Host, domain string) map[string][]string {
	asked := map[string][]string{}
	for _, host := range hosts {
		for _, name := range namesOf(host, domain) {
			matches := func(p hostPattern) bool { return p.MatchString(strings.ToLower(name)) }
			if !host.Target.Local && (o.conditional || slices.ContainsFunc(o.specific, matches)) {
				asked[host.Name] = append(asked[host.Name], name)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	defaults, ok := o.ask(noHost)
	if !ok {
		return nil // ssh itself will say what is wrong
	}
	found := map[string][]string{}
	var mutex sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.NumCPU())
	for _, host := range hosts {
		if len(asked[host.Name]) == 0 {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var lines []string
			for _, name := range asked[host.Name] {
				if answer, ok := o.ask(name); ok {
					lines = append(lines, answer.beyond(defaults, host.Target.Port != 0)...)
				}
			}
			mutex.Lock()
			defer mutex.Unlock()
			found[host.Name] = lines
		})
	}
	group.Wait()
	return found
}

// options are those of a destination, by their names in lower case.
type options map[string][]string

// ask asks ssh for the options of a destination. Nothing is contacted.
func (o ownConfig) ask(destination string) (options, bool) {
	return askSSH(append(slices.Clone(o.args), "-o", "CanonicalizeHostname=no", destination))
}

func askSSH(args []string) (options, bool) {
	out, err := run.Output(context.Background(), run.Command{Program: "ssh", Args: append([]string{"-G", "-T"}, args...), Timeout: 10 * time.Second, Limit: 1 << 20})
	if err != nil {
		return nil, false
	}
	found := options{}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			found[key] = append(found[key], value)
		}
	}
	return found, len(found) > 0
}

// carried are the options that concern how a host is reached and who logs in. Port is one only where the
// plan has none.
var carried = []string{
	"proxyjump", "proxycommand", "proxyusefdpass", "identityfile", "certificatefile", "identitiesonly", "identityagent", "addkeystoagent",
	"bindaddress", "bindinterface", "addressfamily", "port", "connecttimeout", "connectionattempts", "tcpkeepalive", "compression",
	"ciphers", "kexalgorithms", "macs", "pubkeyauthentication", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes",
	"preferredauthentications", "gssapiauthentication", "hostbasedauthentication", "pkcs11provider", "securitykeyprovider",
	"controlmaster", "controlpath", "controlpersist", "ipqos", "requiredrsasize",
}

// paths are those of the carried options whose value is one word that may contain blanks.
var paths = []string{"identityfile", "certificatefile", "identityagent", "pkcs11provider", "securitykeyprovider", "controlpath"}

// beyond returns the lines in which the options differ from the defaults.
func (o options) beyond(defaults options, planHasPort bool) (lines []string) {
	for _, key := range carried {
		values := o[key]
		if slices.Equal(values, defaults[key]) || key == "port" && planHasPort {
			continue
		}
		if len(values) == 0 && (key == "proxyjump" || key == "proxycommand") {
			values = []string{"none"} // an exception from what holds for every host
		}
		for _, value := range values {
			if slices.Contains(paths, key) && strings.ContainsAny(value, " \t") {
				value = `"` + value + `"`
			}
			lines = append(lines, key+" "+value)
		}
	}
	// of the two, ssh takes the first, "none" included
	isJump := func(line string) bool {
		return (strings.HasPrefix(line, "proxyjump ") || strings.HasPrefix(line, "proxycommand ")) && !strings.HasSuffix(line, " none")
	}
	if slices.ContainsFunc(lines, isJump) {
		lines = slices.DeleteFunc(lines, func(line string) bool { return line == "proxyjump none" || line == "proxycommand none" })
	}
	return lines
}

// hasKnownHostsCommand reports whether ssh has that option, which came with OpenSSH 8.5 in 2021. An unknown
// version counts as a new one.
var hasKnownHostsCommand = sync.OnceValue(func() bool {
	var said run.Excerpt
	_ = run.Run(context.Background(), run.Command{Program: "ssh", Args: []string{"-V"}, Stderr: &said, Timeout: 10 * time.Second}) // else it is unknown
	return knowsKnownHostsCommand(said.String())
})

func knowsKnownHostsCommand(version string) bool {
	m := openSSH.FindStringSubmatch(version)
	if m == nil {
		return true
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > 8 || major == 8 && minor >= 5
}

var openSSH = regexp.MustCompile(`OpenSSH_(\d+)\.(\d+)`)
