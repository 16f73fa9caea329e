"""The server under the admin: an app of its own, `django_prefork.dashboard` in INSTALLED_APPS, without a table."""
