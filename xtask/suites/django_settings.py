"""Django's tests in databases that are there already, and that nobody makes or drops."""

import os

from django.db.backends.postgresql.creation import DatabaseCreation

# Connection, password and TLS come from libpq's environment.
SIDE = {"ENGINE": "django.db.backends.postgresql", "USER": os.environ["PGUSER"]}
DATABASES = {
    "default": {**SIDE, "NAME": "django", "TEST": {"NAME": "django"}},
    "other": {**SIDE, "NAME": "django_other", "TEST": {"NAME": "django_other"}},
}
SECRET_KEY = "of the tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

DatabaseCreation._create_test_db = lambda self, *_: self._get_test_db_name()
DatabaseCreation._destroy_test_db = lambda self, *_: None
