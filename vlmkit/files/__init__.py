"""The doors through which files come in and go out: regular files only, within limits."""

from vlmkit.files.jsontext import check_keys as check_keys
from vlmkit.files.jsontext import parse_json as parse_json
from vlmkit.files.reading import check_folder as check_folder
from vlmkit.files.reading import check_size as check_size
from vlmkit.files.reading import each_line as each_line
from vlmkit.files.reading import find_file as find_file
from vlmkit.files.reading import find_folder as find_folder
from vlmkit.files.reading import open_file as open_file
from vlmkit.files.reading import read_file as read_file
from vlmkit.files.writing import append_file as append_file
from vlmkit.files.writing import check_target as check_target
from vlmkit.files.writing import make_folder as make_folder
from vlmkit.files.writing import stream_file as stream_file
from vlmkit.files.writing import whole_file as whole_file
from vlmkit.files.writing import whole_folder as whole_folder
from vlmkit.files.writing import write_file as write_file
