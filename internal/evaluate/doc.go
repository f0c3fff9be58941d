// Package evaluate finds out what Nix makes of hosts, once: [Hosts] evaluates those that are not remembered, by the
// code of Colmena itself, in as many processes as there are processors and memory for. What it finds is remembered
// under the host's fingerprint, and is what [Build] builds and what Colmena gets in a resolved hive instead of
// evaluating again.
package evaluate
