#!/usr/bin/env python3
"""llama.cpp as the peer of `reprise bench`: one line of JSON asks, one answers, on the same file and in the same run.

Needs llama-cpp-python (tools/install_peer.sh). Uses its low-level calls, so that what is timed is llama.cpp itself and not its Python.
"""
import ctypes
import json
import sys
import time


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


try:
    import llama_cpp as lc
    import numpy as np
except ImportError:
    sys.stdin.readline()
    say({"missing": "llama_cpp"})
    sys.exit(0)

QUIET = lc.llama_log_callback(lambda level, text, data: None)
lc.llama_log_set(QUIET, None)


def ms(start):
    return (time.perf_counter() - start) * 1000


class Peer:
    def __init__(self, model, kv, threads, context, sequences):
        lc.llama_backend_init()
        options = lc.llama_model_default_params()
        options.use_mmap = True
        options.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(model.encode(), options)
        if not self.model:
            raise RuntimeError("llama.cpp cannot load this file")
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.vocab_size = lc.llama_vocab_n_tokens(self.vocab)
        settings = lc.llama_context_default_params()
        settings.n_ctx = context
        settings.n_batch = 512
        settings.n_ubatch = 512
        settings.n_seq_max = sequences
        settings.n_threads = threads
        settings.n_threads_batch = threads
        if hasattr(settings, "kv_unified"):
            settings.kv_unified = True   # or the context would be divided among the sequences
        if hasattr(settings, "swa_full"):
            settings.swa_full = False   # as its own programs have it, which is faster
        if kv:
            settings.type_k = settings.type_v = {"f32": lc.GGML_TYPE_F32, "f16": lc.GGML_TYPE_F16, "q8_0": lc.GGML_TYPE_Q8_0}[kv]
        if kv == "q8_0":   # quantised values are read by its fused attention alone
            if hasattr(settings, "flash_attn_type"):
                settings.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_ENABLED
            else:
                settings.flash_attn = True
        settings.no_perf = True
        self.context = lc.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context of this size")
        self.memory = lc.llama_get_memory(self.context)
        self.batch = lc.llama_batch_init(512, 0, 1)
        self.saved = None
        self.saved_bytes = 0
        self.position = 0

    def feed(self, tokens, sequence=0, wanted=True):
        """Appends tokens to a sequence; logits of the last one alone, if they are wanted."""
        tokens = list(tokens)
        for at in range(0, len(tokens), 512):
            piece = tokens[at : at + 512]
            self.batch.n_tokens = len(piece)
            for i, token in enumerate(piece):
                self.batch.token[i] = token
                self.batch.pos[i] = self.position + i
                self.batch.n_seq_id[i] = 1
                self.batch.seq_id[i][0] = sequence
                self.batch.logits[i] = wanted and at + i + 1 == len(tokens)
            if lc.llama_decode(self.context, self.batch) != 0:
                raise RuntimeError("llama_decode failed")
            self.position += len(piece)

    def greedy(self, i=-1):
        logits = np.ctypeslib.as_array(lc.llama_get_logits_ith(self.context, i), shape=(self.vocab_size,))
        return int(np.argmax(logits))

    def clear(self):
        lc.llama_memory_clear(self.memory, True)
        self.position = 0

    def save(self):
        size = lc.llama_state_seq_get_size(self.context, 0)
        if self.saved is None or len(self.saved) < size:
            self.saved = (ctypes.c_uint8 * size)()
        start = time.perf_counter()
        self.saved_bytes = lc.llama_state_seq_get_data(self.context, self.saved, size, 0)
        taken = ms(start)
        if self.saved_bytes == 0:
            raise RuntimeError("llama_state_seq_get_data failed")
        self.saved_position = self.position
        return taken

    def restore(self, sequence=0):
        start = time.perf_counter()
        read = lc.llama_state_seq_set_data(self.context, self.saved, self.saved_bytes, sequence)
        taken = ms(start)
        if read == 0:
            raise RuntimeError("llama_state_seq_set_data failed")
        self.position = self.saved_position
        return taken

    def take_back(self, end, following):
        """Back to position `end`. Recurrent states go back to the state that was saved, from which `following` are computed again."""
        start = time.perf_counter()
        if lc.llama_memory_seq_rm(self.memory, 0, end, -1):
            self.position = end
        else:
            self.restore()
            self.feed(following[: end - self.position], wanted=False)
            lc.llama_synchronize(self.context)
        return ms(start)

    def round(self, prompt, suffix, dirt, decode, rollback):
        self.clear()
        start = time.perf_counter()
        self.feed(prompt)
        prefill = ms(start)
        token = self.greedy()
        ttft_cold = ms(start)
        snapshot = self.save()
        start = time.perf_counter()
        following = [token]
        for _ in range(decode):
            self.feed([following[-1]])
            following.append(self.greedy())
        decoded = ms(start)
        taken_back = self.take_back(self.position + 1 - rollback, following)

        self.clear()
        self.feed(dirt)
        restored = self.restore()
        # The logits of a boundary are no part of llama.cpp's state. To choose a token there anew, a host keeps the state of one token before, as
        # llama.cpp's own server does, and feeds that token: a step of one token, for which this one, a position later, stands.
        start = time.perf_counter()
        self.feed([token])
        self.greedy()
        ttft_restored = restored + ms(start)

        self.clear()
        self.feed(dirt)
        self.restore()
        start = time.perf_counter()
        self.feed(suffix)
        self.greedy()
        suffix_ms = ms(start)

        self.clear()
        self.restore()
        start = time.perf_counter()
        lc.llama_memory_seq_cp(self.memory, 0, 1, -1, -1)
        fork = ms(start)
        lc.llama_memory_seq_rm(self.memory, 1, -1, -1)
        return {
            "prefill_ms": prefill, "ttft_cold_ms": ttft_cold, "snapshot_us": snapshot * 1000, "decode_ms": decoded, "restore_us": restored * 1000,
            "ttft_restored_ms": ttft_restored, "suffix_ms": suffix_ms, "fork_us": fork * 1000, "rollback_ms": taken_back,
            "state_bytes": self.saved_bytes,
        }

    def branches(self, branches, warm_up, steps):
        self.clear()
        self.restore()
        for sequence in range(1, branches):
            lc.llama_memory_seq_cp(self.memory, 0, sequence, -1, -1)
        tokens = [100 + 7 * sequence for sequence in range(branches)]
        position = self.saved_position
        start = time.perf_counter()
        for step in range(warm_up + steps):
            if step == warm_up:
                start = time.perf_counter()
            self.batch.n_tokens = branches
            for i in range(branches):
                self.batch.token[i] = tokens[i] % self.vocab_size
                self.batch.pos[i] = position
                self.batch.n_seq_id[i] = 1
                self.batch.seq_id[i][0] = i
                self.batch.logits[i] = True
            if lc.llama_decode(self.context, self.batch) != 0:
                raise RuntimeError("llama_decode failed")
            position += 1
            tokens = [self.greedy(i) for i in range(branches)]
        return {"ms": ms(start)}


def main():
    peer = None
    for line in sys.stdin:
        try:
            ask = json.loads(line)
            operation = ask.pop("op")
            if operation == "load":
                peer = Peer(**ask)
                say({"ok": True, "version": lc.__version__})
            elif operation == "round":
                say(peer.round(**ask))
            elif operation == "branches":
                say(peer.branches(**ask))
            else:
                say({"error": "unknown operation"})
        except Exception as error:  # whatever it is, the one who asked must hear of it
            say({"error": str(error) or type(error).__name__})


main()
