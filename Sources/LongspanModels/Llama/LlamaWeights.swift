import LongspanKernels

/// The tensors of a Llama-type model.
struct LlamaWeights: Sendable {
  struct Layer: Sendable {
    let attentionNorm: [Float]
    let query: LinearWeights
    let key: LinearWeights
    let value: LinearWeights
    let attentionOutput: LinearWeights
    let feedForwardNorm: [Float]
    let gate: LinearWeights
    let up: LinearWeights
    let down: LinearWeights
  }

  let embedding: WeightMatrix
  let layers: [Layer]
  let outputNorm: [Float]
  let output: LinearWeights
  /// Whether the output product uses the embedding table.
  let isTied: Bool
  /// Divisors of the rotary frequencies (Llama 3.1), or empty.
  let ropeFactors: [Float]

  /// Loads and checks every tensor; `progress` sees the share of layers done and may stop the loading.
  init(
    _ shared: SharedFile, _ c: LlamaConfiguration, storage: WeightStorage, on context: KernelContext,
    progress: ProgressHandler?
  ) throws(LongspanError) {
    let loader = try TensorLoader(source: shared, storage: storage, context: context)
    let attention = c.heads * c.headDimension
    let keyValue = c.keyValueHeads * c.headDimension

    // The table is only read a row at a time, so it stays in the mapping whatever the storage.
    let vocabulary = try loader.shape(of: "token_embd.weight").rows
    embedding = try loader.stored("token_embd.weight", rows: vocabulary, columns: c.hidden)

    isTied = !shared.file.hasTensor(named: "output.weight")
    try loader.requireMemory(besides: isTied ? nil : "token_embd.weight")
    var layers: [Layer] = []
    for index in 0..<c.layers {
      func name(_ part: String) -> String { "blk.\(index).\(part).weight" }
      for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        try loader.refuseBias("blk.\(index).\(part).bias")
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

  var matrices: [LinearWeights] {
    layers.flatMap { [$0.query, $0.key, $0.value, $0.attentionOutput, $0.gate, $0.up, $0.down] } + [output]
  }
}
