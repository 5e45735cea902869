#!/bin/sh
# Sets everything up and runs the main job: a real model answers a question and reads a novel.
set -eu
cd "$(dirname "$0")/.."
CKernels/setup.sh
model=$(Benchmarks/fetch-model.sh)
swift build -c release --product longspan
longspan=$(swift build -c release --show-bin-path)/longspan
text=Benchmarks/Data/persuasion.txt

echo
echo "== What it runs on"
"$longspan" info --model "$model"
echo "load average       $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo
echo "== An answer"
"$longspan" generate --model "$model" --chat --max-tokens 64 --prompt "What is the capital of France?"
echo
echo "== A long prompt: the first 24,000 characters of Persuasion"
prompt=$(mktemp)
trap 'rm -f "$prompt"' EXIT
head -c 24000 "$text" >"$prompt"
"$longspan" generate --model "$model" --prompt-file "$prompt" --max-tokens 64
for context in 512 2048; do
  echo
  echo "== Perplexity of Persuasion, context $context"
  "$longspan" perplexity --model "$model" --text "$text" --skip 2000 --tokens 16384 --context "$context"
done
echo
echo "== What the cache keeps, and what that costs: Persuasion, context 8192"
"$longspan" compare --model "$model" --text "$text" --skip 2000 --tokens 16384 --context 8192 \
  --kv dense --kv lagkv:lag=128,ratio=0.5 --kv lagkv:lag=128,ratio=0.25 --kv lagkv:lag=1024,ratio=0.25
echo
echo "== A five-digit key in filler text"
"$longspan" eval passkey --model "$model" --lengths 2048 --depths 5 --kv dense --kv lagkv:lag=128,ratio=0.25
echo
echo "== Sparse attention and compression of caches, beside what this machine allows"
for kernels in sparse_decode lag_; do
  "$longspan" bench --filter "$kernels" --threads 2 --seconds 0.3
done
