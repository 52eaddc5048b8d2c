"""What is wrong with an environment.yml or labcommons.yml, and what to write instead."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text
from environments.messages.shown import either, quoted

# Where it is wrong; ``problem`` is one of those below.
AT_LINE = Text("spec_wrong_at_line", N_("{file}, line {line}: {problem}"))
IN_FILE = Text("spec_wrong", N_("{file}: {problem}"))

# The file ---------------------------------------------------------------------------------------

NOT_LISTED = Text("spec_folder_unreadable", N_("{folder}: {reason}; check --environments"))
FOLDER_NAME = Text(
    "spec_folder_name",
    N_(
        "{folder}: an environment's folder is named with small letters and digits, and single "
        "'.', '_' or '-' between them, at most 64; rename it"
    ),
)
REQUIREMENTS = Text(
    "spec_is_requirements",
    N_(
        "This is pip's requirements.txt. Write an environment.yml: 'dependencies:', below it the "
        "items '- python', '- ipykernel' and '- pip:', and below that one the lines of this file."
    ),
)
PYPROJECT = Text(
    "spec_is_pyproject",
    N_(
        "This is TOML without pixi's tables: a pyproject.toml, a Pipfile, a lock of poetry or uv. "
        "Write an environment.yml: 'dependencies:', below it the items '- python', '- ipykernel' "
        "and '- pip:', and below that one what the project needs."
    ),
)
EXPLICIT_LINE = Text(
    "given_explicit_line",
    N_(
        "{text} is not the URL of a conda package; an explicit list has one a line, as "
        "'conda list --explicit --md5' prints them"
    ),
    {"text": quoted},
)
GIVEN_EMPTY = Text("given_empty", N_("no conda package for {platform} is in it"))
GIVEN_TWICE = Text("given_twice", N_("{name} is in it twice; make the lock anew"), {"name": quoted})
GIVEN_OTHER_PLATFORM = Text(
    "given_other_platform",
    N_("a package for {subdir}; servers here run {platform}: make the list on such a machine"),
)
GIVEN_PLATFORM = Text(
    "given_platform",
    N_(
        "this lock is for {known}; servers here run {platform}: make it for that as well, for "
        "example with 'conda-lock -p {platform}', or give the environment.yml"
    ),
)
GIVEN_ENVIRONMENTS = Text(
    "given_environments",
    N_("this lock has the environments {known} and none that is called default; give one of them"),
)
GIVEN_UNREADABLE = Text(
    "given_unreadable",
    N_("this lock cannot be read: {reason}; make it anew, or give the environment.yml"),
)
GIVEN_SOURCE = Text(
    "given_source",
    N_("{text} is not a built conda package; give the environment.yml instead"),
    {"text": quoted},
)
GIVEN_NO_WHEEL = Text(
    "given_no_wheel",
    N_("{text} is no wheel of a package index; only these are installed, so take it out"),
    {"text": quoted},
)
GIVEN_NO_HASH = Text(
    "given_no_hash", N_("{name} has no SHA-256 in this lock; make it anew"), {"name": quoted}
)
NOT_TOML = Text("pixi_not_toml", N_("not valid TOML: {reason}"))
TABLE = Text("pixi_table", N_("{what} has another form than pixi gives it; correct it"))
NO_FEATURE = Text(
    "pixi_no_feature",
    N_("the default environment has the feature {name}, which is not there; add or remove it"),
    {"name": quoted},
)
PIXI_KEYS = Text(
    "pixi_keys",
    N_("{name}: {keys} cannot be used here; write the version, as in '{name} = \">=1.2,<2\"'"),
)
PIXI_ITSELF = Text(
    "pixi_itself",
    N_(
        "{name} is the project's own folder and is left out; install it when the environment is "
        "yours, with 'pip install -e .'"
    ),
    {"name": quoted},
)
TOO_LARGE = Text("spec_too_large", N_("larger than {most} kB; make it shorter"))
NOT_UTF8 = Text(
    "spec_not_utf8",
    N_(
        "not UTF-8 text (perhaps {guess}); save it as UTF-8 in your editor, or run: "
        "iconv -f {guess} -t UTF-8 {file} > new.yml"
    ),
)
BROKEN_ENCODING = Text(
    "spec_broken_encoding",
    N_("it begins as {encoding} text and is none from here on; save it as UTF-8"),
)
NUL = Text(
    "spec_nul", N_("a NUL character: this is no text, or UTF-16 taken for UTF-8; save it as UTF-8")
)
LOST = Text(
    "spec_character_lost",
    N_("a character was lost here when the file was read in another encoding; save it as UTF-8"),
)
TAB = Text("spec_tab", N_("a tab; YAML wants spaces there"))
FULL_WIDTH = Text(
    "spec_full_width",
    N_("“{sign}” is a sign of a Chinese keyboard; write {plain} there"),
)
OTHER_SPACE = Text(
    "spec_other_space",
    N_("a space that YAML does not know, as pages have them; write plain spaces there"),
)
NOT_YAML = Text("spec_not_yaml", N_("not valid YAML: {reason}"))
EMPTY = Text("spec_empty", N_("empty"))
TOO_MANY_ENTRIES = Text("spec_too_many_entries", N_("too many entries; make it shorter"))
ALIAS = Text(
    "spec_alias",
    N_("what begins with '*' names an anchor ('&'), and there is none; put the text into quotes"),
)
TAG_OF_YAML = Text(
    "spec_yaml_tag",
    N_("tags ('!') are not accepted; write the text without it, or in quotes"),
)
DIRECTIVE = Text("spec_directive", N_("directives ('%') are not accepted; remove the line"))
TOO_DEEP = Text("spec_too_deep", N_("nested too deeply; make it flatter"))
MAPPING = Text("spec_no_mapping", N_("{what} must be a mapping, lines of the form 'key: value'"))
LIST = Text("spec_no_list", N_("{what} must be a list, lines of the form '- item'"))
NO_TEXT = Text("spec_no_text", N_("{what} must be a text"))
EMPTY_TEXT = Text("spec_empty_text", N_("{what} must not be empty"))
LONG_TEXT = Text("spec_long_text", N_("{what} must be a text of one line, at most 500 characters"))
TWICE = Text("spec_key_twice", N_("{key} is given twice; remove one"), {"key": quoted})
# What these are about, where it is not a key.
THE_FILE = Text("spec_the_file", N_("the file"))
A_KEY = Text("spec_a_key", N_("a key"))
A_CHANNEL = Text("spec_a_channel", N_("a channel"))
A_PLATFORM = Text("spec_a_platform", N_("a platform"))
A_DEPENDENCY = Text("spec_a_dependency", N_("a dependency"))
A_PIP_PACKAGE = Text("spec_a_pip_package", N_("a pip package"))
A_VARIABLE = Text("spec_a_variable", N_("variable {key}"))

# environment.yml --------------------------------------------------------------------------------

UNKNOWN_KEY = Text(
    "spec_unknown_key",
    N_("{key} counts for nothing, as with conda; known are {known}"),
    {"key": quoted},
)
NO_NAME = Text("spec_no_name", N_("'name' is missing; write for example 'name: py313-data'"))
NAME = Text(
    "spec_name",
    N_(
        "name {name}: small letters and digits are wanted, with single '.', '_' or '-' between "
        "them, at most 64; write for example 'name: py313-data'"
    ),
    {"name": quoted},
)
NAME_NOT_FOLDERS = Text(
    "spec_name_not_folders",
    N_("name {name} must be the folder's name; write 'name: {wanted}'"),
    {"name": quoted},
)
SELECTOR = Text(
    "spec_selector",
    N_("{selector} is a comment to conda: the line counts on every platform, also here on Linux"),
    {"selector": quoted},
)
PLATFORM = Text(
    "spec_platform",
    N_("platform {platform} counts for nothing: servers here run {known}"),
    {"platform": quoted, "known": either},
)
NO_CHANNELS = Text(
    "spec_no_channels",
    N_("'nodefaults' alone leaves no channel; write for example 'channels: [conda-forge]'"),
)
CHANNELS = Text("spec_channels", N_("more than {most} channels; remove some"))
VARIABLE_NAME = Text(
    "spec_variable_name",
    N_("{key} is not a variable's name: letters, digits and '_' are"),
    {"key": quoted},
)
VARIABLE_OURS = Text("spec_variable_ours", N_("variable {key} is set by the server; remove it"))
VARIABLE_RUNS = Text(
    "spec_variable_runs",
    N_(
        "variable {key}: some shells would run what stands in '$(…)' or '`…`'; write the value "
        "itself"
    ),
)
VARIABLES = Text("spec_variables", N_("at most {most} variables are wanted"))

# Channels ---------------------------------------------------------------------------------------

CHANNEL_UP = Text(
    "spec_channel_up", N_("channel {channel}: '..' is not accepted"), {"channel": quoted}
)
CHANNEL_NAME = Text(
    "spec_channel_name",
    N_("{channel} is not a channel's name; write for example conda-forge"),
    {"channel": quoted},
)
CHANNEL_PLATFORM = Text(
    "spec_channel_platform",
    N_("channel {channel} names a platform; servers choose theirs: write {instead}"),
    {"channel": quoted},
)
CHANNEL_URL = Text(
    "spec_channel_url", N_("channel {channel} is not a valid URL"), {"channel": quoted}
)
CHANNEL_SECRET = Text(
    "spec_channel_secret",
    N_(
        "a channel's URL must not contain a name, password or token; the site file's "
        "environments.credentials is the place"
    ),
)
CHANNEL_QUERY = Text(
    "spec_channel_query",
    N_("channel {channel}: a URL without '?', '#' and '..' is wanted"),
    {"channel": quoted},
)
CHANNEL_SCHEME = Text(
    "spec_channel_scheme",
    N_("channel {channel}: write https://HOST/…, http://HOST/… or file:///…"),
    {"channel": quoted},
)

# Dependencies -----------------------------------------------------------------------------------

NO_DEPENDENCIES = Text(
    "spec_no_dependencies",
    N_("'dependencies' is missing or empty; write below it for example '- python 3.13.*'"),
)
DEPENDENCIES = Text("spec_dependencies", N_("one to {most} dependencies are wanted"))
PIP_TWICE = Text("spec_pip_twice", N_("{name} is listed twice for pip; keep one"), {"name": quoted})
PIP_PACKAGES = Text("spec_pip_packages", N_("at most {most} pip packages are wanted"))
NO_DEPENDENCY = Text(
    "spec_no_dependency",
    N_("a dependency is one text such as 'numpy >=2', without ': ', or a 'pip:' list"),
)
ONE_COLON = Text(
    "spec_one_colon",
    N_(
        "{text}: to conda, one colon names no channel; for that of this name, write "
        "'{channel}::{rest}'"
    ),
    {"text": quoted},
)
OTHER_FILE = Text(
    "spec_pip_other_file",
    N_("{text}: other files are not read; write their lines here, one each"),
    {"text": quoted},
)
NO_REQUIREMENT = Text(
    "spec_no_requirement",
    N_("{text} is not a pip requirement: {reason}; write for example 'requests >=2.31'"),
    {"text": quoted},
)
PIP_OPTION = Text(
    "spec_pip_option",
    N_("{text}: pip's options are not read; write only the package, such as 'requests >=2.31'"),
    {"text": quoted},
)
PIP_INDEX = Text(
    "spec_pip_index",
    N_(
        "{text}: where pip's packages come from is the site's to say; remove the line, and ask an "
        "administrator where a package index is missing"
    ),
    {"text": quoted},
)
PIP_HASH = Text(
    "spec_pip_hash",
    N_("{text}: the lock keeps the hashes, those of the site's index; write the line without"),
    {"text": quoted},
)
PIP_FOLDER = Text(
    "spec_pip_folder",
    N_(
        "{text}: a file or folder on one machine only; make a wheel and put it into the site's "
        "package index, or install it in your own environment after the build"
    ),
    {"text": quoted},
)
PIP_URL = Text(
    "spec_pip_url",
    N_(
        "{text}: what a URL or a git repository gives can change; put the wheel into the site's "
        "package index and name it here with its version, or install it in your own environment "
        "after the build"
    ),
    {"text": quoted},
)
PACKAGE_URL = Text(
    "spec_package_url",
    N_(
        "{text}: a package's name is wanted, not a URL; write for example 'numpy >=2' or "
        "'conda-forge::numpy'"
    ),
    {"text": quoted},
)
NO_SPEC = Text(
    "spec_no_package_spec",
    N_(
        "{text} is not a package spec: {reason}; write for example 'numpy >=2' or "
        "'conda-forge::numpy'"
    ),
    {"text": quoted},
)
PACKAGE_NAME = Text(
    "spec_package_name",
    N_("{name} is not a package's name; write for example 'numpy >=2' or 'conda-forge::numpy'"),
    {"name": quoted},
)
VIRTUAL = Text(
    "spec_virtual_package",
    N_("{name} is what a machine has, not a package; leave it out"),
    {"name": quoted},
)
VIRTUAL_CUDA = Text(
    "spec_virtual_cuda",
    N_("""{name} is what a machine has, not a package; write 'cuda: "12.4"' into {file}"""),
    {"name": quoted},
)
COMMA = Text(
    "spec_comma",
    N_(
        "{text}: {build} stands where a build's name would; put a comma between versions, as in "
        "'numpy >=1.20,<2'"
    ),
    {"text": quoted, "build": quoted},
)
NO_VERSION_SPEC = Text("spec_no_version", N_("{version} is no version"), {"version": quoted})
NO_BUILD_NAME = Text("spec_no_build", N_("{build} is no build's name"), {"build": quoted})
BRACKETS_OPEN = Text("spec_brackets_open", N_("brackets are wanted in pairs, one pair at most"))
IN_BRACKETS = Text(
    "spec_in_brackets",
    N_("{text}: {part} in brackets counts for nothing, as with conda"),
    {"text": quoted, "part": quoted},
)
OTHER_PLATFORM = Text(
    "spec_other_platform",
    N_("{text}: a package for {subdir}; servers here run Linux: remove the line"),
    {"text": quoted},
)
BRACKETS = Text(
    "spec_brackets",
    N_(
        "{text}: of what stands in brackets only {known} are accepted; write for example "
        "'numpy >=2' or 'conda-forge::numpy'"
    ),
    {"text": quoted},
)

# labcommons.yml ---------------------------------------------------------------------------------

ABOUT = Text(
    "about_wrong",
    N_(
        "{key}: {problem}; known are title and description (a text or {en: …, zh_CN: …}), "
        "access, gpu, cuda, size, maintainer, source, imports, tag and platforms"
    ),
)
MODULE = Text(
    "about_module",
    N_("{name} is not a module's name; write for example numpy.linalg"),
    {"name": quoted},
)
CUDA = Text(
    "about_cuda",
    N_("{version} is not a CUDA version; write for example '12.4'"),
    {"version": quoted},
)
TAG = Text(
    "about_tag",
    N_("{tag} is not a semantic version; write for example 1.2.0"),
    {"tag": quoted},
)
LINE = Text("about_line", N_("one line of 1 to 200 characters is wanted"))
ACCESS = Text(
    "about_access",
    N_("write 'everyone', or {teams: […], courses: […]} with one name"),
)
WORDS = Text("about_words", N_("1 to {most} characters without control characters"))
