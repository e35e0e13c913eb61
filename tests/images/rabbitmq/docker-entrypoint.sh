#!/bin/sh
# As the official image's: it runs what it is told.
exec "$@"
