#!/bin/sh
# Makes the demo's database and sample data, then becomes the command it is given: PID 1 is the server, not this shell.
set -e
# As PID 1 a shell ignores what it does not handle.
trap 'exit 143' INT TERM
python manage.py migrate --verbosity 0
python manage.py demo_data
exec "$@"
