#!/bin/sh
# Installs into an image what the lock file names, compared with its hashes: from the folder `wheels` if that holds any,
# else from the index.
#   install.sh --tools       uv, and what builds the wheel
#   install.sh --fetch [EXTRA ...]   all that the others take of an index, into the folder `fetched`
#   install.sh --wheel       builds the wheel of fedtasks, with its kernels
#   install.sh --fedtasks    that wheel, beside the packages that are there
#   install.sh [EXTRA ...]   the packages that fedtasks needs with these extras, and their bill of materials
set -eu
cd "$(dirname "$0")"

environment=/opt/fedtasks
uv=uv/bin/uv
export UV_CACHE_DIR=/cache UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never
from=
if [ -n "$(find wheels -name '*.whl')" ]; then
  from="--no-index --find-links wheels"
fi

with_extras() {
  for extra in "$@"; do printf -- '--extra %s ' "$extra"; done
}

install() {  # ENVIRONMENT, then what to export of the lock file
  target=$1
  shift
  "$uv" export --quiet --frozen --no-emit-project "$@" --output-file /tmp/locked.txt
  [ -d "$target" ] || "$uv" venv --quiet --python "$(command -v python3)" "$target"
  # shellcheck disable=SC2086 # two options, or none
  "$uv" pip install --python "$target/bin/python" --require-hashes $from --requirements /tmp/locked.txt
  rm /tmp/locked.txt
}

case ${1-} in
--tools)
  # shellcheck disable=SC2086
  python3 -m pip install --no-cache-dir --target uv --require-hashes $from --requirement uv-pin.txt
  install builder --only-group build
  ;;
--fetch)
  shift
  # shellcheck disable=SC2046
  "$uv" export --quiet --frozen --no-emit-project --no-default-groups --group build $(with_extras "$@") \
    --output-file /tmp/locked.txt
  python3 -m pip download --no-cache-dir --dest fetched --require-hashes --requirement /tmp/locked.txt \
    --requirement uv-pin.txt
  ;;
--wheel)
  builder/bin/python -m hatchling build --target wheel --directory dist
  (cd dist && sha256sum ./*.whl) >wheel.sha256
  ;;
--fedtasks)
  "$uv" pip install --python "$environment/bin/python" --no-index --no-deps dist/*.whl
  ;;
*)
  extras=$(with_extras "$@")
  # shellcheck disable=SC2086
  install "$environment" --no-dev $extras
  mkdir -p /usr/share/fedtasks
  # shellcheck disable=SC2086
  "$uv" export --quiet --frozen --no-dev $extras --format cyclonedx1.5 --preview-features sbom-export \
    --output-file /usr/share/fedtasks/sbom.cdx.json
  ;;
esac
