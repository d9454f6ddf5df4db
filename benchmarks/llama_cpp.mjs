// llama.cpp on one thread: reading 512 tokens a stream, then decoding 32 more of each (the
// fastest of three rounds), by wall clock.
//
//     npm install node-llama-cpp            (in FOLDER; it brings llama.cpp, built for each kind of processor)
//     node llama_cpp.mjs FOLDER MODEL.gguf STREAMS
//
// Prints one line of JSON. node-llama-cpp batches what its streams ask for at the same time.
import {join, resolve} from "node:path";
import {pathToFileURL} from "node:url";

const [folder, model_path, count] = process.argv.slice(2);
const library = join(resolve(folder), "node_modules", "node-llama-cpp", "dist", "index.js");
const {getLlama} = await import(pathToFileURL(library));
const [streams, read, decoded] = [Number(count), 512, 32];

const llama = await getLlama({gpu: false, build: "never", maxThreads: 1});
const model = await llama.loadModel({modelPath: resolve(model_path)});
const context = await model.createContext({sequences: streams, contextSize: 768, batchSize: 512, threads: 1});
const sequences = Array.from({length: streams}, () => context.getSequence());

async function speed(tokens, work) {
    const start = performance.now();
    await Promise.all(sequences.map(work));
    return (1000 * streams * tokens) / (performance.now() - start);
}

const prefill = await speed(read, (sequence, stream) => {
    const ids = Array.from({length: read}, (_, i) => 100 + ((7 * i + 13 * stream) % 1000));
    return sequence.evaluateWithoutGeneratingNewTokens(ids);
});
const rounds = [];
for (let round = 0; round < 3; round++)
    rounds.push(
        await speed(decoded, async (sequence) => {
            let left = decoded;
            // Greedy: what is sampled does not matter, only that a token follows a token.
            for await (const _ of sequence.evaluate([500], {temperature: 0, yieldEogToken: true}))
                if (--left === 0) break;
        }),
    );
const decode = Math.max(...rounds);
console.log(JSON.stringify({streams, prefill, decode, processor: llama.systemInfo.trim()}));
process.exit(0);
