package colmena

// Image is an installer image that is to be built.
type Image struct {
	// File is the rendered installer.nix, by its absolute path.
	File string
	Host string
	// Netinstall leaves the host's system out; Legacy has it start in BIOS mode.
	Netinstall, Legacy bool
}

// imageOf passes everything as data: neither a path nor a name becomes code.
const imageOf = `{ file, host, netinstall, legacyBoot }: (import (/. + file) { inherit netinstall legacyBoot; }).${host}`

// BuildImage gives the arguments with which nix-build makes an installer image. The image is a file
// in the folder iso of what link, a path that must not exist yet, then points to; as long as it does,
// Nix keeps it.
func BuildImage(image Image, link string) []string {
	nixBool := map[bool]string{true: "true", false: "false"}
	return []string{
		"--out-link", link,
		"--argstr", "file", image.File, "--argstr", "host", image.Host,
		"--arg", "netinstall", nixBool[image.Netinstall], "--arg", "legacyBoot", nixBool[image.Legacy],
		"-E", imageOf,
	}
}
