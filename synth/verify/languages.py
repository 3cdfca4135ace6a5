"""Languages beside Python in which programs are judged, and how each is compiled and run.

A sandbox has a language where it has its tools, in /usr/bin or /bin. Rust, Go, Java: one file; of Java, the class that
has `main` outside of any package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A longer name would be no name of a file.
_MAIN_CLASS = re.compile(r"^(?:(?:public|final|abstract|strictfp)\s+)*class\s+(\w{1,60})\b", re.MULTILINE)
_MAIN = re.compile(r"\bmain\s*\(")
_BUILD_JAVA = """
home=$(dirname $(dirname $(readlink -f $(command -v javac))))
export LD_LIBRARY_PATH=$home/lib
jvm='-XX:+UseSerialGC -XX:ActiveProcessorCount=2 -XX:ReservedCodeCacheSize=64m -XX:CompressedClassSpaceSize=64m -Xmx'
small=$(echo ${{jvm}}512m | sed s/-X/-J-X/g)
javac $small -d classes {main}.java || exit
echo "LD_LIBRARY_PATH=$home/lib exec $home/bin/java $jvm\\$1m -Xss64m -XX:-UsePerfData -cp program {main}" > program
jar $small --create --main-class {main} -C classes . >> program
"""  # an archive behind a script that knows where the JVM is: without /proc it does not find its own libraries


@dataclass(frozen=True)
class Language:
    """`build` compiles the file `source` to the file `program`, which `run` runs. Words in braces: see the methods.

    `names`: of `code_language` and of fences. `reserved_mb`: address space that its runtime takes up without using it.
    """

    names: tuple[str, ...]
    source: str
    build: str
    run: str = "./program"
    reserved_mb: int = 0

    def source_name(self, code: str) -> str:
        return self.source.format(main=_main_class(code))

    def build_command(self, code: str) -> list[str]:
        """Exit code 127: a tool is missing."""
        return ["sh", "-c", self.build.format(main=_main_class(code))]

    def run_command(self, memory_mb: int) -> list[str]:
        """A runtime that limits its heap itself limits it to ``memory_mb`` (MiB)."""
        return self.run.format(memory_mb=memory_mb).split()


def _main_class(code: str) -> str:
    """The last class that begins a line before `main`."""
    main = _MAIN.search(code)
    *_, name = "Main", *_MAIN_CLASS.findall(code[: main.start() if main else len(code)])
    return str(name)


LANGUAGES = {
    "cpp": Language(("cpp", "c++", "cc", "cpp17", "cpp20"), "program.cpp", "g++ -O2 -std=c++17 -o program program.cpp"),
    "c": Language(("c",), "program.c", "gcc -O2 -o program program.c -lm"),
    "rust": Language(("rust", "rs"), "program.rs", "rustc -O -o program program.rs"),
    "go": Language(
        ("go", "golang"),
        "program.go",
        "GOMAXPROCS=2 CGO_ENABLED=0 go build -p 2 -o program program.go",
        "env GOMAXPROCS=2 GOMEMLIMIT={memory_mb}MiB ./program",
        reserved_mb=1024,
    ),
    "java": Language(("java",), "{main}.java", _BUILD_JAVA, "sh program {memory_mb}", reserved_mb=3072),
    "javascript": Language(
        ("javascript", "js", "node", "nodejs"),
        "program",
        "node --check program",
        "node --max-old-space-size={memory_mb} --stack-size=32000 program",
        reserved_mb=2048,
    ),
}
NAMES = {name: language for language, one in LANGUAGES.items() for name in one.names}
