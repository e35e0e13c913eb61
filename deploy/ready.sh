#!/bin/bash
# Whether the process in this container is ready, by its monitor: a container's health check, in a few milliseconds.
#
#   medperf-ready [PORT]        default: 9000
exec 3<>"/dev/tcp/127.0.0.1/${1:-9000}" || exit 1
printf 'GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ] || { cat <&3; exit 1; }
