package lab

import (
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed nix
var nixFiles embed.FS

// missingUnits are those that NixOS 20.09 takes from systemd, and Debian's does not have.
var missingUnits = []string{
	"systemd-hwdb-update.service", "systemd-vconsole-setup.service", "systemd-journal-catalog-update.service",
	"systemd-update-done.service", "systemd-update-utmp.service", "systemd-udev-hwdb-update.service", "systemd-coredump.socket",
	"systemd-coredump@.service", "nss-lookup.target", "systemd-boot-system-token.service", "systemd-timedated.service",
	"rc-local.service", "systemd-importd.service", "dbus-org.freedesktop.import1.service",
}

// k3sVersions are the attributes of nixpkgs for k3s, with the versions that they have in the lab.
var k3sVersions = map[string]string{
	"k3s": "1.35.2+k3s1", "k3s_1_31": "1.31.14+k3s1", "k3s_1_32": "1.32.11+k3s1", "k3s_1_33": "1.33.7+k3s3",
	"k3s_1_34": "1.34.3+k3s1", "k3s_1_35": "1.35.2+k3s1", "k3s_1_36": "1.36.0+k3s1",
}

// makeTree writes the nixpkgs of the lab, and a tarball of it that a project can pin.
func (l *Lab) makeTree() error {
	if err := l.makePrograms(); err != nil {
		return err
	}
	stamp, err := l.stamp()
	if err != nil {
		return err
	}
	limits := map[string]uint64{}
	for name, number := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		var limit unix.Rlimit
		if err := unix.Getrlimit(number, &limit); err != nil {
			return err
		}
		limits[name] = min(limit.Max, 1<<62)
	}
	settings, err := json.MarshalIndent(map[string]any{
		"harness": filepath.Join(l.Harness, "shim"), "nixpkgs": filepath.Join(l.Sources, "nixpkgs"), "root": strings.TrimSuffix(l.Root, "/"),
		"virtual": l.isVirtual(), "more": l.more, "kernel": l.kernel, "masked": masked,
		"stamp": stamp, "k3s": l.K3S, "standIn": l.standIn(), "limits": limits, "missingUnits": missingUnits, "k3sVersions": k3sVersions,
	}, "", "  ")
	if err != nil {
		return err
	}
	tree := l.path("tree")
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	files, err := fs.Sub(nixFiles, "nix")
	if err != nil {
		return err
	}
	if err := os.CopyFS(tree, files); err != nil {
		return err
	}
	// what a hive names by path leads to the harness
	modules := filepath.Join(l.Harness, "shim", "nixos", "modules")
	err = filepath.WalkDir(modules, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(modules, file)
		if err != nil {
			return err
		}
		return write(filepath.Join(tree, "nixos", "modules", name), "import "+file+"\n", 0o644)
	})
	return errors.Join(err,
		os.MkdirAll(filepath.Join(tree, "nixos", "lib"), 0o755),
		os.Rename(filepath.Join(tree, "eval-config.nix"), filepath.Join(tree, "nixos", "lib", "eval-config.nix")),
		write(filepath.Join(tree, "lib", "default.nix"), "import "+filepath.Join(l.Harness, "shim", "lib")+"\n", 0o644),
		write(filepath.Join(tree, "settings.json"), string(settings)+"\n", 0o644),
		l.makeTarball("tree", tree), l.makeTarball("disko", filepath.Join(l.Sources, "disko")))
}

// stamp changes with the programs of the machines.
func (l *Lab) stamp() (string, error) {
	info, err := os.Stat(filepath.Join(l.Root, "var/lib/dpkg/status"))
	if err != nil {
		return "", err
	}
	return info.ModTime().UTC().Format("20060102150405"), nil
}

// makeTarball makes NAME.tar.gz. Nix remembers what it read from a URL, so a new one gets another: see Pin.
func (l *Lab) makeTarball(name, folder string) error {
	_, err := run(exec.Command("tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--exclude=.git", "-C", filepath.Dir(folder),
		"-cf", l.path(name+".tar"), filepath.Base(folder)))
	return err
}

// tarball returns the URL of one of them, under a name made from its contents.
func (l *Lab) tarball(name string) (string, error) {
	data, err := os.ReadFile(l.path(name + ".tar"))
	if err != nil {
		return "", err
	}
	file := l.path("cache", fmt.Sprintf("%s-%x.tar", name, sha256.Sum256(data)))
	return "file://" + file, os.WriteFile(file, data, 0o644)
}

func write(file, text string, mode os.FileMode) error {
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode))
}

// Pin lets a project use the lab's nixpkgs: plans/lock.json names it, and the plan the release that it is like.
func (l *Lab) Pin(project string) error {
	network := filepath.Join(project, "plans", "network.yaml")
	text, err := os.ReadFile(network)
	if err != nil {
		return err
	}
	for key, value := range map[string]string{"nixos": "nixos-24.11", "k3s": `"1.31"`, "state": `"24.11"`} {
		text = regexp.MustCompile(`(?m)^(  `+key+`: ).*$`).ReplaceAll(text, []byte("${1}"+value))
	}
	if err := os.WriteFile(network, text, 0o644); err != nil {
		return err
	}
	file := filepath.Join(project, "plans", "lock.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var lock map[string]map[string]string
	if err := json.Unmarshal(data, &lock); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for kind, name := range map[string]string{"nixpkgs": "tree", "disko": "disko"} {
		entry, there := lock[kind]
		if !there {
			continue
		}
		if entry["url"], err = l.tarball(name); err != nil {
			return err
		}
		if kind == "nixpkgs" {
			entry["ref"] = "nixos-24.11"
		}
		hash, err := run(l.Deployer("nix-prefetch-url", "--unpack", entry["url"]))
		if err != nil {
			return err
		}
		entry["sha256"] = hash
	}
	data, err = json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
