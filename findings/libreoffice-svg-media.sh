#!/usr/bin/env bash
# LibreOffice Draw 7.4.7.2 and an @media block in the style sheet of an SVG.
#
# Guess:     a program that knows no dark mode ignores "@media (prefers-color-scheme: dark) {…}" as a whole.
# Behaviour: it drops the first rule of the block and applies the others always. With one rule in each block, the
#            light colours stay. librsvg 2.54.7 ignores the block in both cases.
# Seen:      ground of the picture with two rules in one block: #000000; with one rule in each: #ffffff
# Needs soffice (libreoffice-draw), rsvg-convert (librsvg2-bin) and python3. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
soffice --version
rsvg-convert --version

picture() {
	cat <<END
<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60" viewBox="0 0 60 60"><style>
.ground{fill:#ffffff}
.mark{fill:#ff0000}
$1
</style><rect class="ground" width="60" height="60"/><rect class="mark" x="20" y="20" width="20" height="20"/></svg>
END
}
picture '@media (prefers-color-scheme: dark){
.mark{fill:#00ff00}
.ground{fill:#000000}
}' > block.svg
picture '@media (prefers-color-scheme: dark){.mark{fill:#00ff00}}
@media (prefers-color-scheme: dark){.ground{fill:#000000}}' > single.svg

# ground FILE: the colour of the pixel at 5,5 of a PNG
ground() {
	python3 - "$1" <<'END'
import struct, sys, zlib
data, at, packed = open(sys.argv[1], "rb").read(), 8, b""
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    chunk, at = data[at + 8:at + 8 + size], at + 12 + size
    if kind == b"IHDR":
        width, _, _, colour = struct.unpack(">IIBB", chunk[:10])
    elif kind == b"IDAT":
        packed += chunk
channels = {2: 3, 6: 4}[colour]
raw, stride, row = zlib.decompress(packed), width * channels, bytearray(width * channels)
for y in range(6):
    how, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
    for i in range(stride):
        a, b, c = line[i - channels] if i >= channels else 0, row[i], row[i - channels] if i >= channels else 0
        paeth = min((abs(a + b - c - v), n, v) for n, v in enumerate((a, b, c)))[2]
        line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[how]) & 255
    row = line
print("#" + bytes(row[5 * channels:5 * channels + 3]).hex())
END
}
for name in block single; do
	soffice "-env:UserInstallation=file://$work/profile" --headless --convert-to png --outdir lo $name.svg > /dev/null 2>&1
	rsvg-convert $name.svg -o rsvg-$name.png
	echo "$name: LibreOffice $(ground lo/$name.png), librsvg $(ground rsvg-$name.png)"
done
[ "$(ground lo/block.png) $(ground lo/single.png)" = "#000000 #ffffff" ]
[ "$(ground rsvg-block.png) $(ground rsvg-single.png)" = "#ffffff #ffffff" ]
