import LongspanKernels

/// The memory of a case's calls, and how to make one.
struct BenchmarkOperands: ~Copyable {
  private let kernel: BenchmarkKernel
  private let shape: Shape
  private let type: ElementType
  private let context: KernelContext
  // the kernel decides which of these hold anything
  private let inputs: Inputs
  private var output: Slots<Float>
  private var moreOutput: Slots<Float>
  private var workspace = Workspace()

  /// A shape by its dimensions' names.
  struct Shape {
    let values: [String: Int]
    subscript(key: String) -> Int { values[key] ?? 0 }
  }

  struct Inputs: ~Copyable {
    let first: Slots<UInt8>
    let second: Slots<UInt8>
    let third: Slots<UInt8>
    let floats: Slots<Float>
    let moreFloats: Slots<Float>
    let indices: Slots<Int32>
    let weights: [WeightMatrix]
    let packed: PackedCopies
    let vector: [Float]
    let bias: [Float]
    let ssd: SSDParameters
    let rotary: RotaryTable
    /// Of each copy, or of all.
    let lists: [SlotLists]
    let windows: LagWindows?

    init(_ c: BenchmarkCase, _ s: Shape, copies: Int, _ context: KernelContext) throws(LongspanError) {
      let sizes = InputSizes(c.kernel, s)
      let first = try Slots<UInt8>(copies: copies, c.elementType, sizes.first, context)
      // of one cache each call reads other tokens
      let caches = c.kernel == .sparseDecode ? 1 : copies
      let second = try Slots<UInt8>(copies: caches, c.elementType, sizes.second, context)
      let third = try Slots<UInt8>(copies: caches, c.elementType, sizes.third, context)
      let floats = try Slots<Float>(copies: copies, filled: sizes.floats, context)
      let moreFloats = try Slots<Float>(copies: copies, filled: sizes.moreFloats, context)
      var indices = try Slots<Int32>(copies: copies, count: sizes.indices)
      Filling.fill(&indices.buffer, below: s["V"])
      let isRotary = c.kernel == .rope || c.kernel == .ropeShift
      let rotary = try RotaryTable(
        positions: isRotary ? (0..<Int64(s["T"])).map { $0 } : [],
        inverseFrequencies: isRotary ? (0..<s["D"] / 2).map { 1 / Float($0 + 1) } : [])
      let packed =
        switch c.kernel {
        case .product(let type): try PackedCopies(copies, type, rows: s["M"], columns: s["K"], context)
        default: PackedCopies()
        }
      weights =
        switch c.kernel {
        case .linear(let type), .dequantize(let type):
          try WeightMatrix.copies(copies, type, rows: s["M"], columns: s["K"], context)
        case .embedding:
          // one table: each call takes other rows
          try WeightMatrix.copies(1, c.elementType.weightType, rows: s["V"], columns: s["C"], context)
        default: []
        }
      vector = Self.vector(c.kernel, s)
      let isSelective = c.kernel == .selectiveScan || c.kernel == .selectiveUpdate
      bias = [Float](repeating: -1, count: isSelective ? s["E"] : 0)
      let isSSD = c.kernel == .ssdScan || c.kernel == .ssdUpdate
      ssd = SSDParameters(heads: isSSD ? s["H"] : 0, keep: s["keep"])
      lists = Self.lists(c.kernel, s, copies: copies)
      windows =
        c.kernel == .lagPrefill
        ? BenchmarkLists.lagWindows(
          heads: s["Hk"], tokens: s["N"], sink: s["sink"], lag: s["W"], keep: s["K"]) : nil
      self.first = first
      self.second = second
      self.third = third
      self.floats = floats
      self.moreFloats = moreFloats
      self.indices = indices
      self.rotary = rotary
      self.packed = packed
    }

    /// Weights and biases of ones, or decays of -1.
    private static func vector(_ kernel: BenchmarkKernel, _ s: Shape) -> [Float] {
      switch kernel {
      case .selectiveScan, .selectiveUpdate: [Float](repeating: -1, count: s["E"] * s["N"])
      default: [Float](repeating: 1, count: kernel.isNorm ? s["C"] : kernel == .dtSteps ? s["E"] : 0)
      }
    }

    private static func lists(_ kernel: BenchmarkKernel, _ s: Shape, copies: Int) -> [SlotLists] {
      switch kernel {
      case .sparseDecode:
        BenchmarkLists.random(
          copies: copies, lists: s["Hk"], count: s["K"] / s["block"], of: (s["S"] - 1) / s["block"] + 1)
      case .sparsePrefill:
        BenchmarkLists.random(
          copies: 1, lists: ((s["N"] - 1) / BenchmarkLists.queryTokens + 1) * s["Hk"],
          count: s["K"] / s["block"], of: (s["N"] - 1) / s["block"] + 1)
      case .compact: [BenchmarkLists.even(heads: s["H"], count: s["K"], of: s["N"])]
      default: []
      }
    }
  }

  init(_ c: BenchmarkCase, copies: Int, _ context: KernelContext) throws(LongspanError) {
    let shape = Shape(values: c.shape)
    let inputs = try Inputs(c, shape, copies: copies, context)
    let sizes = InputSizes(c.kernel, shape)
    let output = try Slots<Float>(
      copies: copies, filled: sizes.output, context, as: c.kernel.changesOperands ? c.elementType : .f32)
    let moreOutput = try Slots<Float>(copies: copies, filled: sizes.moreOutput, context)
    kernel = c.kernel
    self.shape = shape
    type = c.elementType
    self.context = context
    self.inputs = inputs
    self.output = output
    self.moreOutput = moreOutput
  }

  /// Bytes of scratch that the calls so far took.
  var scratchBytes: Int { workspace.byteCount }

  /// Bytes of the operands that ``read()`` reads.
  var readableBytes: Int {
    inputs.first.buffer.count + inputs.second.buffer.count + inputs.third.buffer.count
      + inputs.packed.byteCount
  }

  /// Reads every copy of the element operands and of packed weights, and does nothing else.
  ///
  /// - Returns: the bytes read.
  func read() throws(LongspanError) -> Int {
    if let memory = inputs.packed.memory {
      return try context.measureRead(try memory.bytes(0..<memory.byteCount), passes: 1)
    }
    return try context.measureRead(inputs.first.buffer.span.bytes, passes: 1)
      + context.measureRead(inputs.second.buffer.span.bytes, passes: 1)
      + context.measureRead(inputs.third.buffer.span.bytes, passes: 1)
  }

  /// Makes one call with a copy of the operands.
  mutating func call(_ slot: Int) throws(LongspanError) {
    let range = output.range(slot)
    let moreRange = moreOutput.range(slot)
    try Self.call(
      kernel, shape, type, context, slot, inputs, &output.buffer, range, &moreOutput.buffer, moreRange,
      &workspace)
  }

  private static func call(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ output: inout AlignedBuffer<Float>, _ range: Range<Int>,
    _ moreOutput: inout AlignedBuffer<Float>, _ moreRange: Range<Int>, _ workspace: inout Workspace
  ) throws(LongspanError) {
    var out = try output.mutableSpan(of: range)
    switch kernel {
    case .attentionDecode, .attentionPrefill:
      let isDecode = kernel == .attentionDecode
      // head-major, as caches hold keys and values
      let tokens = s[isDecode ? "S" : "N"]
      let keys = TensorLayout(
        type, tokens: tokens, heads: s["Hk"], columns: s["D"], tokenStride: s["D"],
        headStride: tokens * s["D"])
      let queries = TensorLayout(type, tokens: s[isDecode ? "T" : "N"], heads: s["Hq"], columns: s["D"])
      try context.attend(
        isDecode ? .decode : .prefill, queries: try inputs.first.view(slot, queries),
        keys: try inputs.second.view(slot, keys), values: try inputs.third.view(slot, keys),
        options: AttentionOptions(mask: AttentionMask(window: s["window"] > 0 ? s["window"] : nil)),
        workspace: &workspace, into: &out)
    case .attentionMerge:
      var sums = try moreOutput.mutableSpan(of: moreRange)
      try context.mergeAttention(
        parts: s["P"], rows: s["R"], headDimension: s["D"],
        outputs: inputs.floats.buffer.span.extracting(inputs.floats.range(slot)),
        logSumExps: inputs.moreFloats.buffer.span.extracting(inputs.moreFloats.range(slot)), into: &out,
        logSumExp: &sums)
    case .sparseDecode, .sparsePrefill, .lagPrefill:
      try attendToSome(kernel, s, type, context, slot, inputs, &out, &workspace)
    case .lagScores, .select, .compact, .lagCompression, .ropeShift:
      try compress(kernel, s, type, context, slot, inputs, &out, &workspace)
    case .rope:
      let layout = TensorLayout(type, tokens: s["T"], heads: s["H"], columns: s["D"])
      var rotated = try MutableTensorView(out.mutableBytes, layout)
      try context.rotate(
        try inputs.first.view(slot, layout), by: inputs.rotary, layout: .halves, into: &rotated)
    case .convert:
      let layout = TensorLayout(tokens: s["T"], heads: s["H"], columns: s["D"])
      let outLayout = TensorLayout(type, tokens: s["T"], heads: s["H"], columns: s["D"])
      var converted = try MutableTensorView(out.mutableBytes, outLayout)
      let floats = inputs.floats.buffer.span.extracting(inputs.floats.range(slot))
      try context.convert(try TensorView(floats.bytes, layout), into: &converted)
    case .rmsNorm:
      let layout = TensorLayout(type, tokens: s["R"], columns: s["C"])
      let weight = inputs.vector.span
      try context.rmsNorm(try inputs.first.view(slot, layout), weight: weight, epsilon: 1e-5, into: &out)
    case .layerNorm:
      let layout = TensorLayout(type, tokens: s["R"], columns: s["C"])
      let weight = inputs.vector.span
      try context.layerNorm(
        try inputs.first.view(slot, layout), weight: weight, bias: weight, epsilon: 1e-5, into: &out)
    case .gate(let activation):
      let layout = TensorLayout(type, tokens: s["R"], columns: s["C"])
      try context.gatedActivation(
        activation, gate: try inputs.first.view(slot, layout), up: try inputs.second.view(slot, layout),
        into: &out)
    case .logSoftmaxGather:
      var entropy = try moreOutput.mutableSpan(of: moreRange)
      let layout = TensorLayout(type, tokens: s["R"], columns: s["V"])
      try context.logSoftmaxGather(
        logits: try inputs.first.view(slot, layout),
        targets: inputs.indices.buffer.span.extracting(inputs.indices.range(slot)), nll: &out,
        entropy: &entropy)
    case .embedding:
      try context.embed(
        inputs.indices.buffer.span.extracting(inputs.indices.range(slot)), table: inputs.weights[0],
        into: &out)
    case .dequantize:
      try context.dequantize(inputs.weights[slot], into: &out)
    case .causalConv, .gatedRMSNorm, .dtSteps:
      var state = try moreOutput.mutableSpan(of: moreRange)
      try stateSpaceLayer(kernel, s, type, context, slot, inputs, &out, &state)
    case .selectiveScan, .selectiveUpdate:
      var state = try moreOutput.mutableSpan(of: moreRange)
      try selectiveScan(kernel, s, type, context, slot, inputs, &out, &state, &workspace)
    case .ssdScan, .ssdUpdate:
      var state = try moreOutput.mutableSpan(of: moreRange)
      try ssdScan(kernel, s, type, context, slot, inputs, &out, &state, &workspace)
    case .linear:
      let layout = TensorLayout(tokens: s["R"], columns: s["K"])
      try context.linear(
        try inputs.first.view(slot, layout), inputs.weights[slot], workspace: &workspace, into: &out)
    case .product:
      let layout = TensorLayout(tokens: s["R"], columns: s["K"])
      try context.product(
        try inputs.first.view(slot, layout), inputs.packed.weights[slot], workspace: &workspace, into: &out)
    }
  }
}

/// Elements of each operand of a call.
struct InputSizes {
  var first = 0
  var second = 0
  var third = 0
  var floats = 0
  var moreFloats = 0
  var indices = 0
  var output = 0
  var moreOutput = 0

  // the counts fit, as BenchmarkCost has found the bytes of all operands to
  init(_ kernel: BenchmarkKernel, _ s: BenchmarkOperands.Shape) {
    switch kernel {
    case .attentionDecode, .attentionPrefill:
      let isDecode = kernel == .attentionDecode
      first = s[isDecode ? "T" : "N"] * s["Hq"] * s["D"]
      second = s[isDecode ? "S" : "N"] * s["Hk"] * s["D"]
      third = second
      output = first
    case .attentionMerge:
      floats = s["P"] * s["R"] * s["D"]
      moreFloats = s["P"] * s["R"]
      output = s["R"] * s["D"]
      moreOutput = s["R"]
    case .sparseDecode:
      first = s["T"] * s["Hq"] * s["D"]
      second = s["S"] * s["Hk"] * s["D"]
      third = second
      output = first
    case .sparsePrefill, .lagPrefill:
      first = s["N"] * s["Hq"] * s["D"]
      second = s["N"] * s["Hk"] * s["D"]
      third = second
      output = first
    case .lagScores:
      second = (s["P"] + 1) * s["W"] * s["H"] * s["D"]
      third = second
      output = s["P"] * s["W"] * s["H"]
    case .lagCompression: output = 2 * (s["P"] + 1) * s["W"] * s["H"] * s["D"]
    case .select: floats = s["R"] * s["N"]
    case .compact: output = 2 * s["N"] * s["H"] * s["D"]
    case .ropeShift: output = s["T"] * s["H"] * s["D"]
    case .rope:
      first = s["T"] * s["H"] * s["D"]
      output = first
    case .convert:
      floats = s["T"] * s["H"] * s["D"]
      output = floats
    case .rmsNorm, .layerNorm:
      first = s["R"] * s["C"]
      output = first
    case .gate:
      first = s["R"] * s["C"]
      second = first
      output = first
    case .logSoftmaxGather:
      first = s["R"] * s["V"]
      indices = s["R"]
      output = s["R"]
      moreOutput = s["R"]
    case .embedding:
      indices = s["T"]
      output = s["T"] * s["C"]
    case .dequantize:
      output = s["M"] * s["K"]
    case .causalConv:
      first = s["L"] * s["E"]
      floats = s["E"] * s["W"]
      moreFloats = s["E"]
      output = first
      moreOutput = s["E"] * (s["W"] - 1)
    case .gatedRMSNorm:
      first = s["R"] * s["C"]
      second = first
      output = first
    case .dtSteps:
      first = s["L"] * s["E"]
      output = first
    case .selectiveScan, .selectiveUpdate:
      // u and z, dt, B and C, D; one of L and B is not in the shape
      let rows = s["L"] + s["B"]
      first = 2 * rows * s["E"]
      second = rows * s["E"]
      third = 2 * rows * s["N"]
      floats = s["E"]
      output = second
      moreOutput = max(1, s["B"]) * s["E"] * s["N"]
    case .ssdScan, .ssdUpdate:
      // x, dt, B and C; one of L and B is not in the shape
      let rows = s["L"] + s["B"]
      first = rows * s["H"] * s["P"]
      second = rows * s["H"]
      third = 2 * rows * s["G"] * s["N"]
      output = first
      moreOutput = max(1, s["B"]) * s["H"] * s["P"] * s["N"]
    case .linear, .product:
      first = s["R"] * s["K"]
      output = s["R"] * s["M"]
    }
  }
}

extension ElementType {
  /// The same type for weights.
  fileprivate var weightType: WeightType {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    }
  }
}
