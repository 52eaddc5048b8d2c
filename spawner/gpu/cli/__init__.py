"""``labcommons gpu``, ``quota`` and ``reservation``."""
