#!/bin/sh
# The node's cookie is a secret of the deployment; Erlang takes it only from a file that the node's own user alone
# may read.
set -eu
umask 077
rm -f "$HOME/.erlang.cookie"
cat /run/secrets/erlang_cookie >"$HOME/.erlang.cookie"
exec docker-entrypoint.sh rabbitmq-server
