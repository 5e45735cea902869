#!/bin/sh
# Fuzzes every public function of the C library and the readers of model files: fuzz.sh [SECONDS]
# Each target runs that many seconds (60), two side by side, under AddressSanitizer and UBSan. LONGSPAN_FUZZ_SEED is the
# seed of libFuzzer, 1 without it. An input that is a finding stays in .build/fuzz/findings.
set -eu
cd "$(dirname "$0")/.."
build=.build/fuzz
findings=$build/findings

# Runs one target: fuzz.sh --target NAME SECONDS SEED
if [ "${1:-}" = --target ]; then
  name=$2 log=$findings/$2.log
  case $name in
  gguf) program=$build/LongspanFuzz options="-max_len=24000 $build/seeds/gguf" ;;
  folder) program=$build/LongspanFuzz options="-max_len=12000 $build/seeds/folder" ;;
  tokenizer) program=$build/LongspanFuzz options=-max_len=2000 ;;
  *) program=$build/c/longspan_fuzz options=-max_len=512 ;;
  esac
  # Swift's own handler of crashes would go on when the process is gone
  export LSPAN_FUZZ_TARGET="$name" SWIFT_BACKTRACE=enable=no UBSAN_OPTIONS=print_stacktrace=1
  export LSPAN_FUZZ_FOLDER=$build/folder
  if "$program" -seed="$4" -max_total_time="$3" -timeout=30 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$findings/$name-" $options >"$log" 2>&1; then
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/^#.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    printf '%-20s %9s executions, %6s edges\n' "$name" "$executions" "$edges"
    exit 0
  fi
  echo "FINDING in $name:"
  grep -v '^#[0-9]\|NEW_FUNC\|^INFO' "$log" | head -60
  input=$(sed -n 's/.*Test unit written to //p' "$log")
  echo "Run it again with: LSPAN_FUZZ_TARGET=$name LSPAN_FUZZ_FOLDER=$build/folder SWIFT_BACKTRACE=enable=no $program $input"
  exit 1
fi

seconds=${1:-60} seed=${LONGSPAN_FUZZ_SEED:-1}
CKernels/setup.sh
clang=$(dirname "$(readlink -f "$(command -v swift)")")/clang
[ -x "$clang" ] || clang=clang
rm -rf "$findings" "$build/seeds"
mkdir -p "$findings" "$build/seeds/gguf" "$build/seeds/folder" "$build/folder"
# quietly LOG COMMAND ...
quietly() {
  log=$build/$1.log
  shift
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

quietly swift swift build -c release --package-path Tests/Fuzz --scratch-path $build/swift --product LongspanFuzz \
  -Xswiftc -sanitize=fuzzer,address &
swift=$!
quietly c cmake -S Tests/Fuzz -B $build/c -G Ninja -DCMAKE_C_COMPILER="$clang"
quietly c cmake --build $build/c
wait $swift
ln -sfn swift/release/LongspanFuzz $build/LongspanFuzz

# every exported function has a target, and the targets call it
LSPAN_FUZZ_TARGET=list $build/c/longspan_fuzz >$build/targets
cut -d ' ' -f 2- $build/targets | tr ' ' '\n' | sort -u >$build/listed
"${clang%clang}llvm-nm" -u $build/c/CMakeFiles/longspan_fuzz.dir/*.o | grep -o 'lspan_[a-z0-9_]*' | sort -u >$build/called
sort CKernels/abi/symbols.txt >$build/exported
for list in listed called; do
  diff $build/exported $build/$list >$build/missing || {
    echo "the functions $list by fuzz targets are not those of CKernels/abi/symbols.txt:"
    cat $build/missing
    exit 1
  }
done
echo "$(wc -l <$build/exported) functions in $(wc -l <$build/targets) targets, 3 readers of files; seed $seed, $seconds s each"

# the headers of models: gguf's targets put zeros behind them for the tensors
for file in Tests/Fixtures/tiny/*.gguf Tests/Fixtures/tiny-mamba/*.gguf; do
  head -c 20000 "$file" >"$build/seeds/gguf/$(basename "$file")"
done
# a folder's files in one: FolderTarget.swift says how
for folder in Tests/Fixtures/tiny-mamba/*/; do
  header=$(od -An -tu8 -N8 "$folder/model.safetensors" | tr -d ' ')
  {
    cat "$folder/config.json"; printf '\0'
    cat "$folder/tokenizer.json"; printf '\0'
    head -c $((header + 8)) "$folder/model.safetensors" | tail -c "$header"
    printf '\0%s' $(($(wc -c <"$folder/model.safetensors") - header - 8))
  } >"$build/seeds/folder/$(basename "$folder")"
done
{ echo gguf; echo tokenizer; echo folder; cut -d ' ' -f 1 $build/targets; } | xargs -P 2 -I NAME "$0" --target NAME "$seconds" "$seed"
