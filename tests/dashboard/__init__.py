"""The page under the admin. `python -m tests.dashboard` looks at all of it and takes the pictures of the docs."""
