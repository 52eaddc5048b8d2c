#!/bin/sh
# Reads all messages anew and brings every catalogue up to date; then translate what is
# empty in LC_MESSAGES/labcommons.po. Needs pybabel on PATH (pip install Babel Jinja2).
set -eu
cd "$(dirname "$0")/../.."
locale=commons/locale

pybabel -q extract --mapping "$locale/babel.cfg" --keyword N_ --keyword NP_:1c,2 --keyword NN_:1,2 \
    --no-wrap --add-location file \
    --sort-by-file --omit-header \
    --output "$locale/labcommons.pot" commons courses environments hub_ext jobs jump kernels spawner
for catalogue in "$locale"/*/LC_MESSAGES/labcommons.po; do
    lang=$(basename "$(dirname "$(dirname "$catalogue")")")
    pybabel -q update --input-file "$locale/labcommons.pot" --output-file "$catalogue" \
        --locale "$lang" --domain labcommons --no-wrap --no-fuzzy-matching \
        --ignore-obsolete --ignore-pot-creation-date
done
