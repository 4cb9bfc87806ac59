#!/bin/sh
# Checks the protobuf contract and generates its Go code under api/. The versions
# of buf and the plugins are those of tools/go.mod.
set -eu
cd "$(dirname "$0")"
go tool buf lint ../api
go tool buf generate ../api --template ../api/buf.gen.yaml -o ../api
