import Foundation

/// A Mamba-2 model with one layer and one head whose state is known in closed form.
///
/// A token k of ``keys`` writes 1 into channel k of the state, a ``filler`` token writes ``fillerStep`` into channel 0, and
/// each decays everything by exp(-step). The greatest channel is what the model predicts. After a key and n fillers the key's
/// channel holds exp(-n e) and the filler's e (1 - exp(-n e)) / (1 - exp(-e)), so that the key is predicted for
/// n < ``reach`` = ln((1 + c) / c) / e with c = e / (1 - exp(-e)), and never again after it.
enum HandBuiltMamba {
  static let filler: Int32 = 0
  /// Writes nothing, with a step ten times the filler's.
  static let anchor: Int32 = 1
  /// Writes nothing, with the filler's step.
  static let query: Int32 = 2
  static let keys: [Int32] = [3, 4, 5, 6, 7]
  static let vocabulary = 8
  static let trainedLength = 64

  static let fillerStep = 0.005
  static let anchorStep = 0.05
  static let keyStep = 1.0

  /// Fillers after which a key is forgotten.
  static var reach: Double {
    let c = fillerStep / (1 - exp(-fillerStep))
    return log((1 + c) / c) / fillerStep
  }

  private static let hidden = 16
  private static let inner = 8

  static func file() -> [UInt8] {
    var file = GGUFBuilder()
    file.add("general.architecture", "mamba2")
    file.add("general.name", "hand-built")
    for (key, value) in [
      ("context_length", trainedLength), ("embedding_length", hidden), ("block_count", 1),
      ("ssm.conv_kernel", 4),
      ("ssm.inner_size", inner), ("ssm.state_size", 1), ("ssm.time_step_rank", 1), ("ssm.group_count", 1),
    ] {
      file.add("mamba2.\(key)", UInt32(value))
    }
    file.add(
      "mamba2.attention.layer_norm_rms_epsilon", type: 6, value: GGUFBuilder.little(Float(1e-9).bitPattern))
    file.add("tokenizer.ggml.model", "gpt2")
    file.add("tokenizer.ggml.pre", "gpt-2")
    file.add("tokenizer.ggml.tokens", ["f", "a", "q", "v", "w", "x", "y", "z"])
    file.add("tokenizer.ggml.token_type", [Int32](repeating: 1, count: vocabulary))
    file.add("tokenizer.ggml.merges", [String]())
    file.add("tokenizer.ggml.eos_token_id", UInt32(1))

    add("token_embd.weight", rows: vocabulary, columns: hidden, to: &file) { $0 == $1 ? 1 : 0 }
    add("output_norm.weight", rows: 1, columns: hidden, to: &file) { _, _ in 1 }
    add("output.weight", rows: vocabulary, columns: hidden, to: &file) { $1 == 8 + $0 ? 1 : 0 }
    // the norm of a one-hot vector multiplies it by the root of its size
    add("blk.0.attn_norm.weight", rows: 1, columns: hidden, to: &file) { _, _ in 0.25 }
    // z, x, B, C and dt of each token, which is a one-hot vector here
    add("blk.0.ssm_in.weight", rows: 2 * inner + 3, columns: hidden, to: &file) { row, token in
      guard token < vocabulary else { return 0 }
      switch row {
      case 0..<8: return 20
      case 8..<16: return row - 8 == token && ![anchor, query].contains(Int32(token)) ? 1 : 0
      case 16, 17: return 1
      default:
        let step = token == Int(anchor) ? anchorStep : token > 2 ? keyStep : fillerStep
        return log(exp(step) - 1)
      }
    }
    add("blk.0.ssm_conv1d.weight", rows: 10, columns: 4, to: &file) { $1 == 3 ? 1 : 0 }
    add("blk.0.ssm_conv1d.bias", rows: 1, columns: 10, to: &file) { _, _ in 0 }
    add("blk.0.ssm_dt.bias", rows: 1, columns: 1, to: &file) { _, _ in 0 }
    add("blk.0.ssm_a", rows: 1, columns: 1, isMatrix: true, to: &file) { _, _ in -1 }
    add("blk.0.ssm_d", rows: 1, columns: 1, isMatrix: true, to: &file) { _, _ in 0 }
    add("blk.0.ssm_norm.weight", rows: 1, columns: inner, isMatrix: true, to: &file) { _, _ in 1 }
    add("blk.0.ssm_out.weight", rows: hidden, columns: inner, to: &file) { $0 == 8 + $1 ? 1 : 0 }
    return file.build()
  }

  private static func add(
    _ name: String, rows: Int, columns: Int, isMatrix: Bool? = nil, to file: inout GGUFBuilder,
    _ value: (Int, Int) -> Double
  ) {
    var data: [UInt8] = []
    for row in 0..<rows {
      for column in 0..<columns { data += GGUFBuilder.little(Float(value(row, column)).bitPattern) }
    }
    let shape = isMatrix ?? (rows > 1) ? [UInt64(columns), UInt64(rows)] : [UInt64(columns)]
    file.tensors.append(GGUFBuilder.Tensor(name: name, shape: shape, data: data))
  }
}
