#!/bin/sh
# Locks every requirement with its hashes. Needs uv; the outputs name no index, host or path.
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-find-links "$@"
}
lock requirements/dev.in -o requirements/dev.txt
lock requirements/server.in -c requirements/dev.txt -o requirements/server.txt
lock requirements/client.in -c requirements/dev.txt -o requirements/client.txt
lock requirements/build.in -c requirements/dev.txt -o requirements/build.txt
