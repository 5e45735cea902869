import LongspanKernels

/// The names of a model's tensors in a file format.
struct MambaTensorNames: Sendable {
  let embedding: String
  let outputNorm: String
  let output: String
  /// Before the number of a layer, and after it.
  fileprivate let layer: (prefix: String, infix: String)
  fileprivate let norm: String
  fileprivate let mixerPrefix: String
  fileprivate let input: String
  fileprivate let convolution: String
  fileprivate let projection: String
  fileprivate let timeStep: String
  fileprivate let timeStepBias: String
  fileprivate let decay: String
  fileprivate let skip: String
  fileprivate let gatedNorm: String
  fileprivate let outputProjection: String
  /// Whether the file has log(-A) in place of A.
  fileprivate let decayIsLogarithm: Bool

  /// As llama.cpp's converter writes them.
  static let gguf = MambaTensorNames(
    embedding: "token_embd.weight", outputNorm: "output_norm.weight", output: "output.weight",
    layer: ("blk.", "."), norm: "attn_norm.weight", mixerPrefix: "", input: "ssm_in",
    convolution: "ssm_conv1d", projection: "ssm_x", timeStep: "ssm_dt", timeStepBias: "ssm_dt.bias",
    decay: "ssm_a", skip: "ssm_d", gatedNorm: "ssm_norm.weight", outputProjection: "ssm_out",
    decayIsLogarithm: false)

  /// As MambaForCausalLM (`isDual` false) and Mamba2ForCausalLM of transformers name them.
  static func huggingFace(isDual: Bool) -> MambaTensorNames {
    MambaTensorNames(
      embedding: "backbone.embeddings.weight", outputNorm: "backbone.norm_f.weight", output: "lm_head.weight",
      layer: ("backbone.layers.", "."), norm: "norm.weight", mixerPrefix: "mixer.", input: "in_proj",
      convolution: "conv1d", projection: "x_proj", timeStep: "dt_proj",
      timeStepBias: isDual ? "dt_bias" : "dt_proj.bias", decay: "A_log", skip: "D",
      gatedNorm: "norm.weight", outputProjection: "out_proj", decayIsLogarithm: true)
  }
}

/// The tensors of a Mamba or Mamba-2 model.
struct MambaWeights: Sendable {
  struct Layer: Sendable {
    let norm: [Float]
    /// Of Mamba to x and z; of Mamba-2 to z, x, B, C and the time steps.
    let input: LinearWeights
    /// `[channels, W]`.
    let convolution: [Float]
    /// `[channels]`, or empty.
    let convolutionBias: [Float]
    let timeStepBias: [Float]
    /// A: `[E, N]` or `[H]`.
    let decay: [Float]
    /// D: `[E]` or `[H]`.
    let skip: [Float]
    let mixer: Mixer
    let output: LinearWeights
  }

  /// What only one of the two has.
  enum Mixer: Sendable {
    /// To the low-rank time step, B and C; and from the former to time steps.
    case selective(projection: LinearWeights, timeStep: LinearWeights)
    case dual(norm: [Float])
  }

  let embedding: WeightMatrix
  let layers: [Layer]
  let outputNorm: [Float]
  let output: LinearWeights
  /// Whether the output product uses the embedding table.
  let isTied: Bool

  /// Loads and checks every tensor; `progress` sees the share of layers done and may stop the loading.
  init(
    _ loader: TensorLoader, _ names: MambaTensorNames, _ c: MambaConfiguration, isTied: Bool,
    progress: ProgressHandler?
  ) throws(LongspanError) {
    // The table is only read a row at a time, so it stays in the mapping whatever the storage.
    let vocabulary = try loader.shape(of: names.embedding).rows
    embedding = try loader.stored(names.embedding, rows: vocabulary, columns: c.hidden)
    try loader.requireMemory(besides: isTied ? nil : names.embedding)
    var layers: [Layer] = []
    for index in 0..<c.layers {
      layers.append(try Self.layer(index, loader, names, c))
      try report(ProgressUpdate(stage: "loading", completed: index + 1, total: c.layers + 1), to: progress)
    }
    self.layers = layers
    outputNorm = try loader.values(names.outputNorm, shape: [c.hidden])
    self.isTied = isTied
    output = try loader.matrix(isTied ? names.embedding : names.output, rows: vocabulary, columns: c.hidden)
    try report(ProgressUpdate(stage: "loading", completed: c.layers + 1, total: c.layers + 1), to: progress)
  }

  private static func layer(
    _ index: Int, _ loader: TensorLoader, _ names: MambaTensorNames, _ c: MambaConfiguration
  ) throws(LongspanError) -> Layer {
    let block = "\(names.layer.prefix)\(index)\(names.layer.infix)"
    func name(_ part: String) -> String { block + names.mixerPrefix + part }
    for part in [names.input, names.projection, names.outputProjection] {
      try loader.refuseBias(name(part) + ".bias")
    }
    let channels = c.convolutionChannels
    let bias = name(names.convolution) + ".bias"
    let mixer: Mixer
    let columns: Int
    switch c.mixer {
    case .selective(let rank):
      columns = 2 * c.inner
      mixer = .selective(
        projection: try loader.matrix(
          name(names.projection) + ".weight", rows: rank + 2 * c.stateSize, columns: c.inner),
        timeStep: try loader.matrix(name(names.timeStep) + ".weight", rows: c.inner, columns: rank))
    case .dual(let heads, let groups):
      columns = c.inner + channels + heads
      // llama.cpp stores a row for each group
      mixer = .dual(
        norm: try loader.values(name(names.gatedNorm), shapes: [[c.inner], [c.inner / groups, groups]]))
    }
    let decayShape =
      switch c.mixer {
      case .selective: [c.stateSize, c.inner]
      case .dual(let heads, _): [heads]
      }
    return Layer(
      norm: try loader.values(block + names.norm, shape: [c.hidden]),
      input: try loader.matrix(name(names.input) + ".weight", rows: columns, columns: c.hidden),
      convolution: try loader.values(
        name(names.convolution) + ".weight", shape: [c.convolutionWidth, channels]),
      convolutionBias: loader.source.hasTensor(named: bias) ? try loader.values(bias, shape: [channels]) : [],
      timeStepBias: try loader.values(name(names.timeStepBias), shape: [c.timeStepChannels]),
      decay: try decay(name(names.decay), decayShape, loader, isLogarithm: names.decayIsLogarithm),
      skip: try loader.values(name(names.skip), shape: [c.timeStepChannels]), mixer: mixer,
      output: try loader.matrix(name(names.outputProjection) + ".weight", rows: c.hidden, columns: c.inner))
  }

  /// A, which must be finite and not above 0: a positive one would let states grow without bound.
  private static func decay(
    _ name: String, _ shape: [Int], _ loader: TensorLoader, isLogarithm: Bool
  ) throws(LongspanError) -> [Float] {
    let stored = try loader.values(name, shape: shape)
    let values = isLogarithm ? stored.map { Float(-exponential(Double($0))) } : stored
    guard values.allSatisfy({ $0.isFinite && $0 <= 0 }) else {
      throw loader.error(.invalidFile, name, "makes a decay A that is positive or not finite")
    }
    return values
  }

  var matrices: [LinearWeights] {
    layers.flatMap { layer in
      switch layer.mixer {
      case .selective(let projection, let timeStep): [layer.input, projection, timeStep, layer.output]
      case .dual: [layer.input, layer.output]
      }
    } + [output]
  }

  /// Numbers that are not part of a matrix product.
  var vectorCount: Int {
    layers.reduce(outputNorm.count) { count, layer in
      var vectors = layer.norm.count + layer.convolution.count + layer.convolutionBias.count
      vectors += layer.timeStepBias.count + layer.decay.count + layer.skip.count
      if case .dual(let norm) = layer.mixer { vectors += norm.count }
      return count + vectors
    }
  }
}
