#!/usr/bin/env python3
"""Every form of export of a real fine-tune, read by the engine that serves it: how far it is from what was trained, and what says no.

  served_forms_test.py --graft PROGRAM
The reference is the float32 model that was trained (the base's stored 4-bit weights plus the adapter). What quantisation of the exported
file costs is measured apart from what the engine's own arithmetic costs.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import graft_program
from tuned_model import BASE, TunedModel


class ServedForms(TunedModel):
    exports = ["peft", "gguf:F32", "gguf:F16", "gguf:Q8_0", "gguf-lora", "gguf:Q4_K_M", "gguf:Q4_1"]

    def reported(self, artefact, certificate):
        task = certificate["task"]
        print(f"{artefact.name} by {certificate['reader']}: mean KL {certificate['mean_kl']:.1e}, same top-1 {100 * certificate['top1_agreement']:.1f} %, "
              f"gain kept {100 * certificate['share_of_gain_kept']['loss']:.1f} %, accuracy trained {task['trained']:.3f}, exported {task['exported']:.3f}", file=sys.stderr)
        return certificate

    def served(self, name, engine, bound, *options):
        self.served_file(self.exported(name), engine, bound, *options)

    def served_file(self, artefact, engine, bound, *options):
        certificate = self.reported(artefact, self.certificate(artefact, 0, "--engine", engine, "--max-mean-kl", str(bound), *options))
        self.assertEqual(certificate["problems"], [])
        if bound <= 1e-4:   # llama.cpp's 8-bit activations may turn an answer of a model that has learnt for six steps only
            self.assertEqual(certificate["task"]["exported"], certificate["task"]["trained"])

    def test_f32_in_llama_cpp(self):
        self.served(".tuned.F32.", "llama.cpp", 1e-8, "--cache-type", "F32")

    def test_f16_in_llama_cpp(self):
        self.served(".tuned.F16.", "llama.cpp", 1e-4)

    def test_q8_0_in_llama_cpp(self):
        self.served(".tuned.Q8_0.", "llama.cpp", 1e-2)

    def test_adapter_over_the_original_file_in_llama_cpp(self):
        self.served(".lora.", "llama.cpp", 1e-2)

    def test_merged_directory_in_transformers(self):
        merged = self.folder / "merged"
        done = graft_program.run("export", BASE, "--adapter", self.exported("peft"), "--to", "safetensors:F32", "--out", merged)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.served_file(merged, "transformers", 1e-5)

    def test_adapter_in_peft(self):
        self.served("peft", "transformers", 1e-5)

    def test_q4_k_m_says_what_it_kept(self):
        artefact = self.exported(".tuned.Q4_K_M.")
        certificate = self.reported(artefact, self.certificate(artefact, 0, "--max-mean-kl", "10"))
        self.assertGreater(certificate["share_of_gain_kept"]["loss"], 0.8)

    def test_q4_1_of_a_q4_1_base_fails_loudly(self):
        artefact = self.exported(".tuned.Q4_1.")
        certificate = self.reported(artefact, self.certificate(artefact, 1))
        self.assertGreater(certificate["mean_kl"], 0.05)
        message = graft_program.run("verify", self.run_folder, artefact).stdout
        self.assertIn("this form loses what was trained; gguf:Q8_0, gguf:F16 and gguf-lora beside the original base keep it", message)


if __name__ == "__main__":
    graft_program.main()
