"""For django-prodserver: `manage.py server web` starts this server.

```python
PRODUCTION_PROCESSES = {
    "web": {"BACKEND": "django_prefork.prodserver.PreforkServer", "ARGS": {"bind": "0.0.0.0:8000", "workers": "3"}},
}
```

ARGS are flags of `runprefork` without their dashes; None for one that takes no value. `settings.PREFORK` holds as well.
"""

from __future__ import annotations

import sys

from django_prodserver.backends.base import BaseServerBackend

from django_prefork.management.commands.runprefork import Command


class PreforkServer(BaseServerBackend):
    def start_server(self, *args: str) -> None:
        """Does not return: this process becomes the server, as with `manage.py runprefork`."""
        # With the command's own errors and exit statuses. A reload starts the whole command line again, and so this.
        Command().run_from_argv([sys.argv[0], "runprefork", *args])
