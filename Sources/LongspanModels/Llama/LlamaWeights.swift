import LongspanKernels

/// How the weights of matrix products are held.
public enum WeightStorage: String, Sendable, CaseIterable {
  /// As the file stores them, in its mapping, decoded a panel at a time in every product. On SmolLM2 in Q4_1 this
  /// generates faster than ``f32`` and reads prompts at the same rate (`Benchmarks/NOTES.md`), without memory of its
  /// own.
  case native
  /// Decoded to f32 once, when the model is loaded: 4 bytes a weight.
  case f32
}

/// The tensors of a Llama-type model.
struct LlamaWeights: Sendable {
  struct Layer: Sendable {
    let attentionNorm: [Float]
    let query: WeightMatrix
    let key: WeightMatrix
    let value: WeightMatrix
    let attentionOutput: WeightMatrix
    let feedForwardNorm: [Float]
    let gate: WeightMatrix
    let up: WeightMatrix
    let down: WeightMatrix
  }

  let embedding: WeightMatrix
  let layers: [Layer]
  let outputNorm: [Float]
  let output: WeightMatrix
  /// Whether the output product uses the embedding table.
  let isTied: Bool
  /// Divisors of the rotary frequencies (Llama 3.1), or empty.
  let ropeFactors: [Float]

  /// Loads and checks every tensor; `progress` sees the share of layers done and may stop the loading.
  init(
    _ shared: SharedFile, _ c: LlamaConfiguration, storage: WeightStorage, on context: KernelContext,
    progress: ProgressHandler?
  ) throws(LongspanError) {
    let loader = TensorLoader(shared: shared, storage: storage, context: context)
    let attention = c.heads * c.headDimension
    let keyValue = c.keyValueHeads * c.headDimension

    // The table is only read a row at a time, so it stays in the mapping whatever the storage.
    let vocabulary = try loader.shape(of: "token_embd.weight").rows
    embedding = try loader.stored("token_embd.weight", rows: vocabulary, columns: c.hidden)

    try loader.requireMemory()
    var layers: [Layer] = []
    for index in 0..<c.layers {
      func name(_ part: String) -> String { "blk.\(index).\(part).weight" }
      for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
      where shared.file.hasTensor(named: "blk.\(index).\(part).bias") {
        throw LongspanError(
          .unsupported, "\(shared.file.name): tensor 'blk.\(index).\(part).bias': biases are not supported")
      }
      layers.append(
        Layer(
          attentionNorm: try loader.vector(name("attn_norm"), count: c.hidden),
          query: try loader.matrix(name("attn_q"), rows: attention, columns: c.hidden),
          key: try loader.matrix(name("attn_k"), rows: keyValue, columns: c.hidden),
          value: try loader.matrix(name("attn_v"), rows: keyValue, columns: c.hidden),
          attentionOutput: try loader.matrix(name("attn_output"), rows: c.hidden, columns: attention),
          feedForwardNorm: try loader.vector(name("ffn_norm"), count: c.hidden),
          gate: try loader.matrix(name("ffn_gate"), rows: c.feedForward, columns: c.hidden),
          up: try loader.matrix(name("ffn_up"), rows: c.feedForward, columns: c.hidden),
          down: try loader.matrix(name("ffn_down"), rows: c.hidden, columns: c.feedForward)))
      try report(ProgressUpdate(stage: "loading", completed: index + 1, total: c.layers + 1), to: progress)
    }
    self.layers = layers
    outputNorm = try loader.vector("output_norm.weight", count: c.hidden)
    isTied = !shared.file.hasTensor(named: "output.weight")
    output = try loader.matrix(
      isTied ? "token_embd.weight" : "output.weight", rows: vocabulary, columns: c.hidden)
    ropeFactors =
      shared.file.hasTensor(named: "rope_freqs.weight")
      ? try loader.vector("rope_freqs.weight", count: c.rotaryDimension / 2) : []
    guard ropeFactors.allSatisfy({ $0.isFinite && $0 > 0 }) else {
      throw LongspanError(
        .invalidFile, "\(shared.file.name): tensor 'rope_freqs.weight' has a factor that is not positive")
    }
    try report(ProgressUpdate(stage: "loading", completed: c.layers + 1, total: c.layers + 1), to: progress)
  }

  var matrices: [WeightMatrix] {
    layers.flatMap { [$0.query, $0.key, $0.value, $0.attentionOutput, $0.gate, $0.up, $0.down] } + [output]
  }
}

/// A box that lets many weight matrices keep one file's mapping alive.
final class SharedFile: Sendable {
  let file: GGUFFile

  init(_ file: consuming GGUFFile) {
    self.file = file
  }
}

/// Finds tensors in a file, checks their shapes and makes weights of them.
struct TensorLoader {
  let shared: SharedFile
  let storage: WeightStorage
  let context: KernelContext

  func shape(of name: String) throws(LongspanError) -> (rows: Int, columns: Int) {
    let tensor = try shared.file.tensor(named: name)
    guard tensor.shape.count == 2 else {
      throw LongspanError(
        .invalidFile,
        "\(shared.file.name): tensor '\(name)' has \(tensor.shape.count) dimensions instead of 2")
    }
    return (tensor.shape[1], tensor.shape[0])
  }

  /// Throws if decoding every matrix would take more memory than there is.
  func requireMemory() throws(LongspanError) {
    guard storage == .f32 else { return }
    var bytes = 0
    let isTied = !shared.file.hasTensor(named: "output.weight")
    for tensor in shared.file.tensors where tensor.shape.count == 2 && tensor.type != .f32 {
      if tensor.name == "token_embd.weight", !isTied { continue }
      let (size, overflow) = tensor.elementCount.multipliedReportingOverflow(by: 4)
      bytes = overflow ? Int.max : bytes.addingReportingOverflow(size).overflow ? Int.max : bytes + size
    }
    try SystemMemory.require(bytes, for: "the weights of \(shared.file.name) in f32")
  }

  /// A matrix as the file stores it.
  func stored(_ name: String, rows: Int, columns: Int) throws(LongspanError) -> WeightMatrix {
    let tensor = try shared.file.tensor(named: name)
    guard tensor.shape == [columns, rows] else {
      throw LongspanError(
        .invalidFile,
        "\(shared.file.name): tensor '\(name)' has shape \(tensor.shape) instead of [\(columns), \(rows)]")
    }
    guard let type = WeightType(rawValue: tensor.type.rawValue) else {
      let names = WeightType.allCases.map { "\($0)".uppercased() }.joined(separator: ", ")
      throw LongspanError(
        .unsupported,
        "\(shared.file.name): tensor '\(name)' has type \(tensor.type.name), which is not one of \(names)")
    }
    do throws(LongspanError) {
      return try shared.file.withUnsafeBytes(of: tensor) { bytes throws(LongspanError) in
        try WeightMatrix(type, rows: rows, columns: columns, bytes: bytes, owner: shared)
      }
    } catch {
      throw LongspanError(error.code, "\(shared.file.name): tensor '\(name)': \(error.message)")
    }
  }

  /// A matrix for products, held as the loader's storage says.
  func matrix(_ name: String, rows: Int, columns: Int) throws(LongspanError) -> WeightMatrix {
    let stored = try stored(name, rows: rows, columns: columns)
    return storage == .f32 && stored.type != .f32 ? try stored.dequantized(on: context) : stored
  }

  /// A vector in f32.
  func vector(_ name: String, count: Int) throws(LongspanError) -> [Float] {
    let tensor = try shared.file.tensor(named: name)
    guard tensor.shape == [count], tensor.type == .f32 else {
      throw LongspanError(
        .invalidFile,
        "\(shared.file.name): tensor '\(name)' is \(tensor.type.name) of shape \(tensor.shape) instead of F32 [\(count)]"
      )
    }
    return try shared.file.withUnsafeBytes(of: tensor) { bytes throws(LongspanError) in
      (0..<count).map { bytes.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
    }
  }
}
