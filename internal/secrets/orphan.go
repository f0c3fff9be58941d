package secrets

import (
	"fmt"
	"slices"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// Comparing a name with thousands of hosts takes its time: when many files are orphans the cause
// is another than a slip of the pen, and the first few hints are enough.
const maxNearest = 10

// nearestOfFew is diag.Nearest, which finds nothing any more after maxNearest searches.
func nearestOfFew() func(name string, candidates []string) string {
	searches := 0
	return func(name string, candidates []string) string {
		if searches++; searches > maxNearest {
			return ""
		}
		return diag.Nearest(name, candidates)
	}
}

// findOrphans reports the files that look as if they meant something and mean nothing.
func (o *opening) findOrphans(names []string) {
	nearest := nearestOfFew()
	for _, name := range names {
		orphan := finding{severity: diag.Warning, code: codeOrphan}
		_, isPassword, passwordKnown := o.hosts.password(name)
		_, isKey, keyKnown := o.hosts.key(name)
		switch {
		case ClassOf(name) == Leftover:
			orphan = leftBehind(name)
		case textCopy.MatchString(name):
			orphan.message = "is read by nothing because of its ending .txt"
			orphan.hint = "rename it to " + strings.TrimSuffix(lower(name), ".txt")
		case (isPassword || isKey) && isHidden(name):
			orphan.message = "is hidden and read by nothing"
			orphan.hint = "remove or rename it"
		case o.needs.Partial, isPassword && !o.Plain(): // a plain one was reported
			continue
		case isPassword && !passwordKnown:
			orphan.message = "belongs to no host of the plan"
			orphan.hint = o.passwordHint(name, nearest)
		case isKey && !keyKnown:
			orphan.message = "belongs to no host: neither the whole name nor its end after a separator (- _ .) is `all` or a host of the plan"
			orphan.hint = o.keyHint(name, nearest)
		case meantName(name) != "":
			orphan.message = "is read by nothing, unless by a Nix file of yours"
			orphan.hint = didYouMean(meantName(name))
		default:
			continue
		}
		o.report(inSecrets(name), 0, orphan)
	}
}

// meantName returns the name of a secret that another one is most likely meant to have, or "".
func meantName(name string) string {
	if IsOurs(name) || ClassOf(name) != Secret {
		return ""
	}
	if trimmed := strings.TrimSpace(name); trimmed != name && (IsOurs(trimmed) || strings.HasSuffix(trimmed, keyExtension)) {
		return trimmed
	}
	letters := strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(lower(name))
	for _, token := range []string{string(InitToken), string(AgentToken)} {
		if letters == strings.ReplaceAll(token, "-", "") || diag.Nearest(lower(name), []string{token}) != "" {
			return token
		}
	}
	switch letters {
	case "servertoken", "k3stoken", "nodetoken", "clustertoken":
		return string(InitToken)
	case "password", "passwords", "passwort":
		return passwordName
	case "authorizedkeys":
		return everyHost + keyExtension
	}
	return ""
}

// findLostPasswords reports the passwords of no host, by the names of a back end that is not the
// folder.
func (o *opening) findLostPasswords(names []string) {
	nearest := nearestOfFew()
	for _, name := range names {
		if _, isPassword, known := o.hosts.password(name); isPassword && !known && !o.needs.Partial {
			o.report(o.At(name), 0, finding{diag.Warning, codeOrphan, "belongs to no host of the plan", o.passwordHint(name, nearest)})
		}
	}
}

// findOtherForms reports the secrets in the project's folder that are kept in another form than the plan
// says: plain text beside age or pass, files of age beside plain ones or pass. Where the secret is in the
// chosen form as well, which of the two is right must not be a guess.
func (o *opening) findOtherForms() {
	kept, _ := o.keeper.list() // what cannot be listed was reported
	places := map[string]string{}
	for _, name := range kept {
		places[o.subject(name)] = o.At(name)
	}
	for _, form := range []plan.SecretKind{plan.SecretFiles, plan.SecretAge} {
		if form == o.where.Kind || form == plan.SecretFiles && o.Plain() {
			continue
		}
		where := plan.SecretStore{Kind: form}
		names, _ := newKeeper(o.folder, where, nil).list()
		for _, name := range names {
			if IsOurs(name) {
				o.report(at(where, name), 0, o.otherForm(form, places[o.subject(name)]))
			}
		}
	}
}

// subject is equal for secrets that mean the same.
func (o *opening) subject(name string) string {
	if owner, _, known := o.hosts.password(name); known && !strings.Contains(name, "/") {
		return owner + passwordName
	}
	return name
}

// otherForm is about a secret that is kept in a form that nothing reads, twin being where it is kept in the
// chosen one, or "".
func (o *opening) otherForm(form plan.SecretKind, twin string) finding {
	what := map[plan.SecretKind]string{plan.SecretFiles: "is in plain text", plan.SecretAge: "is encrypted by age"}[form]
	kind := o.where.Kind
	if o.Plain() {
		kind = plan.SecretFiles
	}
	removes, takes := fmt.Sprintf("if both are the same, `k3splan secrets move --to %s` removes this one", kind), fmt.Sprintf("`k3splan secrets move --to %s` takes it over", kind)
	if kind == plan.SecretPass && form == plan.SecretAge { // a move looks for plain files only
		removes, takes = "if both are the same, remove this one", "remove it, or decrypt it and store it with `k3splan secrets edit`"
	}
	if twin != "" {
		return finding{diag.Error, codeDuplicate, what + ", and the same secret is kept in " + twin, "remove the wrong one; " + removes}
	}
	return finding{diag.Warning, codePlain, fmt.Sprintf("%s and read by nothing: the plan says that secrets are kept by %s", what, kind), takes}
}

func (o *opening) passwordHint(name string, nearest func(string, []string) string) string {
	base := strings.TrimRight(strings.TrimSuffix(lower(name), passwordName), "-_.")
	switch {
	case o.hosts[base]:
		return didYouMean(base + passwordName)
	case slices.Contains(o.needs.Containers, base):
		return "that is a container: it takes the password of its host"
	}
	if host := nearest(base, o.needs.Hosts); host != "" {
		return didYouMean(host + passwordName)
	}
	return ""
}

func (o *opening) keyHint(name string, nearest func(string, []string) string) string {
	base := strings.TrimSuffix(lower(name), keyExtension)
	candidates := append(slices.Clone(o.needs.Hosts), everyHost)
	all := endings(base)
	for _, ending := range all {
		if ending == deployUser {
			return didYouMean(deployUser + keyExtension)
		}
		if slices.Contains(o.needs.Containers, ending) {
			return "that is a container: name the file after its host"
		}
	}
	// the whole name, and its last part
	for _, ending := range slices.Compact([]string{base, all[len(all)-1]}) {
		if host := nearest(ending, candidates); host != "" {
			return didYouMean(strings.TrimSuffix(base, ending) + host + keyExtension)
		}
	}
	return ""
}

func leftBehind(name string) finding {
	return finding{diag.Warning, codeOrphan, "was left behind by an editor or an interrupted command; it may hold a secret", "rm " + run.Word(inSecrets(name))}
}

func didYouMean(name string) string { return `did you mean "` + name + `"?` }
