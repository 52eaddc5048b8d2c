#!/bin/sh
# Makes a virtual environment small and quick to start: trim.sh PREFIX
set -eu
prefix=$1
site=$(echo "$prefix"/lib/python3*/site-packages)

# Formats that jsonschema checks only where these are there; of schemas here only that of events'
# names has one, `uri`. They are imported at every start, and rfc3987-syntax builds a grammar then. The
# others are what JupyterLab names as dependencies so that there is one kernel; here the server's own
# Python is nobody's kernel. IPython stays: `jupyter console` is made of it.
for package in rfc3987-syntax lark isoduration arrow fqdn rfc3986-validator uri-template webcolors \
    ipykernel debugpy comm psutil nest-asyncio2; do
    /build/bin/pip --python "$prefix" uninstall -q -y "$package"
done
# What needs TeX or a browser cannot work here, so it is not offered: not in the menu, not in REST.
sed -i -E '/^(pdf|webpdf|qtpdf|qtpng) *=/d' "$site"/nbconvert-*.dist-info/entry_points.txt
rm -rf "$prefix"/share/jupyter/kernels "$prefix"/share/man
# "source activate" looks along the PATH.
rm -f "$prefix"/bin/activate* "$prefix"/bin/Activate*
find "$site" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
# Of the names of languages and places, those of the interface's languages.
find "$site/babel/locale-data" -name '*.dat' ! -name root.dat ! -name 'en*' ! -name 'zh*' -delete
find "$prefix/share/jupyter" "$site" -name '*.map' -delete
# The image is not changed after this, so that compiled files need no check of their source.
"$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site" || true
