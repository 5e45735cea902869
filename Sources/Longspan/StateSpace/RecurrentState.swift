import LongspanKernels

/// What one sequence's states look like in each layer of a state-space model.
public struct RecurrentShape: Sendable, Equatable {
  /// Layers of the model.
  public let layers: Int
  /// Rows of a layer's convolution that the next token still sees: W - 1.
  public let convolutionRows: Int
  /// Channels of the convolution: E of Mamba, E + 2 G N of Mamba-2.
  public let convolutionChannels: Int
  /// Of a layer's scan: `[E, N]` of Mamba, `[H, P, N]` of Mamba-2.
  public let stateDimensions: [Int]
  let convolutionCount: Int
  let stateCount: Int

  /// - Throws: ``/LongspanKernels/LongspanError`` unless each size is positive and what they make fits in memory's
  ///   addresses.
  public init(
    layers: Int, convolutionRows: Int, convolutionChannels: Int, stateDimensions: [Int]
  ) throws(LongspanError) {
    let sizes = [layers, convolutionRows, convolutionChannels] + stateDimensions
    guard sizes.allSatisfy({ $0 > 0 }), !stateDimensions.isEmpty else {
      throw LongspanError(
        .badShape,
        "states of \(layers) layers, \(convolutionRows) x \(convolutionChannels) and \(stateDimensions): each must be "
          + "positive")
    }
    self.layers = layers
    self.convolutionRows = convolutionRows
    self.convolutionChannels = convolutionChannels
    self.stateDimensions = stateDimensions
    func product(_ sizes: [Int]) throws(LongspanError) -> Int {
      var product = 1
      for size in sizes {
        let (next, overflow) = product.multipliedReportingOverflow(by: size)
        guard !overflow, next <= Int.max / 8 else {
          throw LongspanError(.overflow, "states of \(layers) layers and \(stateDimensions) are too large")
        }
        product = next
      }
      return product
    }
    convolutionCount = try product([convolutionRows, convolutionChannels])
    stateCount = try product(stateDimensions)
    _ = try product([layers, convolutionRows, convolutionChannels])
    _ = try product([layers] + stateDimensions)
  }

  /// Bytes of the states of all layers, whatever has been read.
  public var byteCount: Int { layers * (convolutionCount + stateCount) * MemoryLayout<Float>.stride }
}

/// The states of one sequence in every layer of a state-space model: the last rows before each causal convolution, and what
/// each scan has gathered. Its size does not depend on how much has been read.
///
/// A model reads tokens in steps:
///
/// ```swift
/// try state.beginStep()
/// for layer in 0..<layers {
///   try state.updateConvolution(layer: layer) { rows throws(LongspanError) in ... }
///   try state.updateState(layer: layer) { values throws(LongspanError) in ... }
/// }
/// try state.commitStep(count)
/// ```
///
/// A step works on copies, made layer by layer, which become the state when it is committed: one that fails is taken back by
/// ``abandonStep()``. So twice ``byteCount`` is held.
public struct RecurrentState: ~Copyable {
  /// What its states look like.
  public let shape: RecurrentShape
  /// Tokens read.
  public private(set) var count = 0
  private var convolution: Pair
  private var states: Pair
  private var isStepping = false

  /// Values of every layer, and those that a step makes of them.
  private struct Pair: ~Copyable {
    let layerCount: Int
    var current: AlignedBuffer<Float>
    var next: AlignedBuffer<Float>
    /// Whether the step has the layer's values.
    var isUpdated: [Bool]

    init(layers: Int, layerCount: Int) throws(LongspanError) {
      let current = try AlignedBuffer<Float>(count: layers * layerCount)
      let next = try AlignedBuffer<Float>(count: layers * layerCount)
      self.layerCount = layerCount
      self.current = current
      self.next = next
      isUpdated = Array(repeating: false, count: layers)
    }

    mutating func update(
      _ layer: Int, _ body: (inout MutableSpan<Float>) throws(LongspanError) -> Void
    ) throws(LongspanError) {
      guard isUpdated.indices.contains(layer), !isUpdated[layer] else {
        throw LongspanError(
          .badIndex,
          "layer \(layer) is not one of \(isUpdated.count) that are still to be updated in this step")
      }
      let range = layer * layerCount..<(layer + 1) * layerCount
      try Self.copy(current, range, to: &next)
      var values = try next.mutableSpan(of: range)
      try body(&values)
      isUpdated[layer] = true
    }

    private static func copy(
      _ source: borrowing AlignedBuffer<Float>, _ range: Range<Int>, to target: inout AlignedBuffer<Float>
    ) throws(LongspanError) {
      var values = try target.mutableSpan(of: range)
      values.withUnsafeMutableBufferPointer { values in
        source.span.extracting(range).withUnsafeBufferPointer {
          _ = values.update(fromContentsOf: $0)
        }
      }
    }

    mutating func commit() {
      swap(&current, &next)
      abandon()
    }

    mutating func abandon() {
      for layer in isUpdated.indices { isUpdated[layer] = false }
    }

    mutating func fill(_ values: [Float]) {
      var span = current.mutableSpan
      for index in 0..<span.count { span[index] = values.isEmpty ? 0 : values[index] }
    }
  }

  /// Makes the state before any token: zeros.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if there is no memory for it.
  public init(_ shape: RecurrentShape) throws(LongspanError) {
    try SystemMemory.require(2 * shape.byteCount, for: "the states of \(shape.layers) layers")
    let convolution = try Pair(layers: shape.layers, layerCount: shape.convolutionCount)
    let states = try Pair(layers: shape.layers, layerCount: shape.stateCount)
    self.shape = shape
    self.convolution = convolution
    self.states = states
  }

  /// Bytes of the states.
  public var byteCount: Int { shape.byteCount }

  /// Begins to read tokens.
  public mutating func beginStep() throws(LongspanError) {
    guard !isStepping else {
      throw LongspanError(.invalidArgument, "a step is under way: commit or abandon it first")
    }
    isStepping = true
  }

  /// Brings the rows before a layer's convolution up to date, `[W - 1, channels]`.
  public mutating func updateConvolution(
    layer: Int, _ body: (inout MutableSpan<Float>) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try requireStep()
    try convolution.update(layer, body)
  }

  /// Brings a layer's state of the scan up to date.
  public mutating func updateState(
    layer: Int, _ body: (inout MutableSpan<Float>) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try requireStep()
    try states.update(layer, body)
  }

  /// Makes what the step made the state, once every layer is up to date.
  public mutating func commitStep(_ tokens: Int) throws(LongspanError) {
    try requireStep()
    guard tokens >= 0, convolution.isUpdated.allSatisfy({ $0 }), states.isUpdated.allSatisfy({ $0 }) else {
      throw LongspanError(.invalidArgument, "not every layer has had its convolution and scan in this step")
    }
    convolution.commit()
    states.commit()
    count += tokens
    isStepping = false
  }

  /// Takes a step back that failed.
  public mutating func abandonStep() {
    convolution.abandon()
    states.abandon()
    isStepping = false
  }

  private func requireStep() throws(LongspanError) {
    guard isStepping else { throw LongspanError(.invalidArgument, "no step was begun") }
  }
}

extension RecurrentState {
  /// A state as it was at some time, in memory of its own.
  public struct Snapshot: Sendable {
    /// Tokens that had been read.
    public let count: Int
    /// What its states look like.
    public let shape: RecurrentShape
    fileprivate let convolution: [Float]
    fileprivate let states: [Float]
  }

  /// Keeps the state, to ``restore(_:)`` it later.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` within a step.
  public func snapshot() throws(LongspanError) -> Snapshot {
    guard !isStepping else { throw LongspanError(.invalidArgument, "a step is under way") }
    return Snapshot(
      count: count, shape: shape, convolution: Self.array(convolution.current.span),
      states: Self.array(states.current.span))
  }

  /// Brings back the state of a snapshot, of this sequence or another one, which can be used again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the snapshot is of another shape.
  public mutating func restore(_ snapshot: Snapshot) throws(LongspanError) {
    guard snapshot.shape == shape else {
      throw LongspanError(
        .invalidArgument, "a snapshot of states of another shape cannot be restored in these")
    }
    abandonStep()
    convolution.fill(snapshot.convolution)
    states.fill(snapshot.states)
    count = snapshot.count
  }

  /// Goes back to before any token.
  public mutating func removeAll() {
    abandonStep()
    convolution.fill([])
    states.fill([])
    count = 0
  }

  private static func array(_ span: Span<Float>) -> [Float] {
    span.withUnsafeBufferPointer { Array($0) }
  }
}
