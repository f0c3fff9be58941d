# The start script of an agent's unit.
hash=$(printf %s "$madeFrom" | sha256sum | head -c 32)
printf '#!/bin/sh\nexec podman run \\\n  --name=%s \\\n  docker.io/rancher/k3s:v%s \\\n  '"'--label=%s'"' agent\n' "$agent" "$tag" "$hash" > "$out"
