#!/bin/sh
# Makes a virtual environment small and quick to start: trim.sh PREFIX
set -eu
prefix=$1
site=$(echo "$prefix"/lib/python3*/site-packages)

# rfc3987-syntax builds a grammar when it is imported, for a format check that jsonschema does
# only where it is there: half of the server's start. The others are what JupyterLab names as
# dependencies so that there is one kernel; here the server's own Python is nobody's kernel.
for package in rfc3987-syntax lark ipykernel ipython debugpy jedi parso stack-data \
    executing asttokens pure-eval prompt-toolkit matplotlib-inline comm psutil nest-asyncio; do
    /build/bin/pip --python "$prefix" uninstall -q -y "$package"
done
rm -rf "$prefix"/share/jupyter/kernels "$prefix"/share/man
find "$site" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
# Of the names of languages and places, those of the interface's languages.
find "$site/babel/locale-data" -name '*.dat' ! -name root.dat ! -name 'en*' ! -name 'zh*' -delete
find "$prefix/share/jupyter" "$site" -name '*.map' -delete
# The image is not changed after this, so that compiled files need no check of their source.
"$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site" || true
