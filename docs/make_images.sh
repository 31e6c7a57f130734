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
for story in top-p top-p-model temperature min-p order typical-p xtc repetition; do
    "$fastsample" explain --story "$story" --plot "$images/explain-$story.svg"
done
"$fastsample" explain --prompt 8 --compare "top_k=3;top_k=6" --seed 1 --plot "$images/explain-top-k.svg"
"$fastsample" explain --prompt 9 --compare "epsilon_cutoff=0.02;eta_cutoff=0.02;top_a=0.2,\
order=top_a;p_less=true,order=p_less;top_n_sigma=1,order=top_n_sigma;top_h=0.5" --seed 1 \
    --plot "$images/explain-floors.svg"
"$fastsample" explain --prompt 6 --prompt 4 --compare "temperature=1;dynatemp_range=0.5" --seed 1 \
    --plot "$images/explain-dynatemp.svg"
"$fastsample" explain --prompt 9 --mirostat 2 --mirostat-tau 2.5 --order temperature,mirostat \
    --seed 1 --plot "$images/explain-mirostat.svg"
"$fastsample" explain --prompt 9 --min-p 0.05 --adaptive-target 0.1 --order min_p,adaptive --seed 1 \
    --plot "$images/explain-adaptive.svg"
"$fastsample" explain --logits 9,8.5,8,7.5,7,6.5,6 --tokens red,green,blue,black,white,grey,pink \
    --history 0,0,1,6 --presence-penalty 1 --logit-bias 5:2 --suppress-tokens 2 --top-k 4 --seed 1 \
    --plot "$images/explain-edits.svg"
"$fastsample" explain --logits 3,2.5,2,1 --tokens A,B,C,D --min-tokens-to-keep 3 --top-p 0.4 \
    --seed 1 --plot "$images/explain-least.svg"
"$fastsample" explain --prompt 10 --top-p 0.6 --top 14 --seed 3 \
    --plot "$images/explain-chinese.png"
