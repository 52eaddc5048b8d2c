"""``labcommons backup``: copies of the whole site, restic's, and the way back from them.

One snapshot holds both databases as they were at one moment, what environments are made of, the
audit trail, the site's own files and, where the site wants it, homes, teams and courses. Secrets
and keys are in it as one file that only the recovery key opens: who can read the repository reads
no secret. docs/backup.md says what each of it is for.
"""
