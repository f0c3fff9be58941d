package files

// The names of a project's files and folders, relative to the project, with forward slashes. No other
// package spells them out.
const (
	PlansDir = "plans"
	// HostsFile, K3sFile, NetworkFile and, if it is there, ChecksFile are the tables; WorkbookFile takes the
	// place of all of them.
	HostsFile    = PlansDir + "/hosts.csv"
	K3sFile      = PlansDir + "/k3s.csv"
	ChecksFile   = PlansDir + "/checks.csv"
	NetworkFile  = PlansDir + "/network.yaml"
	WorkbookFile = PlansDir + "/cluster.xlsx"
	// VersionsFile may hold the versions instead of NetworkFile.
	VersionsFile = PlansDir + "/versions.yaml"
	// SchemaFile is the JSON Schema of NetworkFile, for editors.
	SchemaFile = PlansDir + "/network.schema.json"
	// LockFile pins nixpkgs and disko.
	LockFile = PlansDir + "/lock.json"
	// KnownHostsFile holds the public ssh keys by which the hosts are known.
	KnownHostsFile = PlansDir + "/known_hosts"

	// SnippetsDir, PartitioningDir and HardwareDir hold the user's Nix files.
	SnippetsDir     = "nixConfigs"
	PartitioningDir = "partitioning"
	HardwareDir     = "hardware"

	ManifestsDir = "manifests"

	// K3sDir holds extra configuration of k3s for all servers and for all agents.
	K3sDir           = "k3s"
	ServerConfigFile = K3sDir + "/server.yaml"
	AgentConfigFile  = K3sDir + "/agent.yaml"

	SecretsDir = "secrets"

	// GeneratedDir holds the rendered hive, StateDir what k3splan keeps for itself. Neither is for git.
	GeneratedDir  = "generated"
	StateDir      = ".k3splan"
	GitignoreFile = ".gitignore"
)
