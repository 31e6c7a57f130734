#!/bin/sh
# Draws the pictures of docs/ with the installed `fastsample`; needs the extra `plot`.
# explain-chinese.png needs a font with Chinese characters, such as fonts-noto-cjk or
# fonts-wqy-zenhei; in an SVG the reader's fonts show all text.
set -eu
images=$(dirname "$0")/images
fastsample=${FASTSAMPLE:-fastsample}
mkdir -p "$images"

"$fastsample" explain --prompt 4 --temperature 0.8 --top-k 8 --top-p 0.85 --min-p 0.33 --seed 1 \
    --plot "$images/explain-stages.svg"
for story in top-p top-p-model temperature min-p order; do
    "$fastsample" explain --story "$story" --plot "$images/explain-$story.svg"
done
"$fastsample" explain --prompt 8 --compare "top_k=3;top_k=6" --seed 1 --plot "$images/explain-top-k.svg"
"$fastsample" explain --prompt 10 --top-p 0.6 --top 14 --seed 3 \
    --plot "$images/explain-chinese.png"
