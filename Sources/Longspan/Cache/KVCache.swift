import LongspanKernels

/// The keys and values of a sequence of tokens, for each layer of a model, and the policy that decides which are kept.
///
/// Each layer and head has slots of its own, filled from 0 on. A slot holds the key and value of a token; which one, says
/// ``position(layer:head:slot:)``. Layers and heads may keep different tokens, and different numbers of them. When the slots
/// of a layer are used up their number doubles, and on Linux the stored pages move to the larger reservation without being
/// copied.
///
/// A model reads tokens in steps:
///
/// ```swift
/// try cache.beginStep(count)
/// for layer in 0..<layers {
///   try cache.append(layer: layer, keys: keys, values: values, rotatedBy: table, layout: layout, on: context)
///   try cache.attend(layer: layer, queries: queries, on: context, workspace: &workspace, into: &output)
/// }
/// try cache.commitStep(on: context, workspace: &workspace)
/// ```
///
/// A step that fails is taken back by ``abandonStep()``, so that the cache is as it was before.
public struct KVCache: ~Copyable {
  /// What its keys and values look like.
  public let shape: KVShape
  /// How the keys that are given to it were rotated; `nil` if they were not, or it does not matter.
  public let rotary: RotaryEmbedding?
  /// Tokens read, kept or not: the position in the text of the next one.
  public internal(set) var count = 0
  /// Decides what is kept; changed by the steps that it has seen.
  public internal(set) var policy: any KVCachePolicy
  /// Whether a prompt is being read.
  public internal(set) var phase = KVPhase.decode
  /// ``count`` when slots were last given up: the cache cannot go back behind it.
  public internal(set) var lastCompaction = 0
  var layers: [Layer]
  /// Tokens of the step that is under way; 0 for none.
  var step = 0
  /// ``policy`` as it was before the step that is under way.
  var policyBeforeStep: (any KVCachePolicy)?
  /// Whether slots were given up within the step that is under way, so that it cannot be taken back.
  var isCompactedInStep = false
  /// Set when a step failed that could not be taken back.
  var isLost = false
  /// Bytes of slots that were found to be free memory, or taken since.
  var checkedBytes = 0
  /// Angles for moving keys to other positions.
  var shifts: ShiftTable?

  struct Layer {
    var memory: KVLayerMemory
    /// Slots in use of each head, with those of the step.
    var lengths: [Int]
    /// Tokens appended in the step.
    var appended = 0
    /// Whether positions are stored; before, each token's slot is its position.
    var hasPositions = false

    var slots: Int { lengths.max() ?? 0 }
    var isRagged: Bool { lengths.contains { $0 != lengths[0] } }
  }

  /// Makes an empty cache.
  ///
  /// - Parameters:
  ///   - policy: decides what is kept.
  ///   - rotary: how keys are rotated, which policies that renumber positions need.
  ///   - capacity: slots to reserve address space for; the cache grows beyond it when needed.
  /// - Throws: ``/LongspanKernels/LongspanError`` if the policy does not go with the shape, or there is no address space.
  public init(
    _ shape: KVShape, policy: any KVCachePolicy = DensePolicy(), rotary: RotaryEmbedding? = nil,
    capacity: Int = 8192
  ) throws(LongspanError) {
    guard capacity > 0 else {
      throw LongspanError(.badShape, "a cache of \(capacity) slots: at least 1 is needed")
    }
    try policy.check(shape)
    guard policy.positions == .absolute || rotary != nil else {
      throw LongspanError(
        .invalidArgument, "\(policy): renumbered positions need to know how the model rotates its keys")
    }
    if let rotary,
      rotary.inverseFrequencies.isEmpty || 2 * rotary.inverseFrequencies.count > shape.headDimension
    {
      throw LongspanError(
        .badShape,
        "\(rotary.inverseFrequencies.count) pairs of channels do not rotate in heads of \(shape.headDimension)"
      )
    }
    var layers: [Layer] = []
    for _ in 0..<shape.layers {
      layers.append(
        Layer(
          memory: try KVLayerMemory(shape, capacity: capacity),
          lengths: Array(repeating: 0, count: shape.heads)))
    }
    self.shape = shape
    self.rotary = rotary
    self.policy = policy
    self.layers = layers
  }

  /// Slots in use of a layer: of its longest head.
  public func slots(layer: Int) -> Int { layers[layer].slots }

  /// Slots in use of each head of a layer.
  public func lengths(layer: Int) -> [Int] { layers[layer].lengths }

  /// Slots of a layer that fit without another reservation.
  public func capacity(layer: Int) -> Int { layers[layer].memory.capacity }

  /// Bytes of the keys, values and positions in use. Positions take none until slots are first given up.
  public var byteCount: Int {
    layers.reduce(0) { bytes, layer in
      let row = 2 * shape.rowBytes + (layer.hasPositions ? 4 : 0)
      return bytes + row * layer.lengths.reduce(0, +)
    }
  }

  /// Slots in use of the layer that has the most.
  public var mostSlots: Int { layers.reduce(0) { max($0, $1.slots) } }

  /// The position that the next token's key and query are rotated to in a layer.
  public func nextPosition(layer: Int) -> Int {
    switch policy.positions {
    case .absolute: count
    case .renumbered: layers[layer].slots - layers[layer].appended
    }
  }

  /// The position in the text of the token that a slot holds.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/badIndex`` if there is no
  ///   such slot.
  public func position(layer: Int, head: Int, slot: Int) throws(LongspanError) -> Int {
    try checkLayer(layer)
    guard head >= 0, head < shape.heads, slot >= 0, slot < layers[layer].lengths[head] else {
      throw LongspanError(.badIndex, "slot \(slot) of head \(head) in layer \(layer) is not in use")
    }
    let state = layers[layer]
    guard state.hasPositions else { return slot }
    let start = state.memory.positionsOffset + 4 * (head * state.memory.capacity + slot)
    let memory = state.memory.memory
    let bytes = try memory.bytes(start..<start + 4)
    return Int(bytes.unsafeLoad(as: Int32.self))
  }

  func checkLayer(_ layer: Int) throws(LongspanError) {
    guard layer >= 0, layer < shape.layers else {
      throw LongspanError(.badIndex, "layer \(layer) is outside 0 to \(shape.layers - 1)")
    }
  }

  func checkUsable() throws(LongspanError) {
    guard !isLost else {
      throw LongspanError(
        .invalidArgument,
        "the cache lost tokens in a step that failed after it was compressed: empty it or restore a snapshot")
    }
  }
}

extension KVCache {
  /// Makes room for `additional` more tokens in every layer.
  ///
  /// - Complexity: O(heads) a layer that must grow.
  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/insufficientMemory`` if
  ///   the machine has not that much memory free; the tokens are unchanged then.
  public mutating func reserve(_ additional: Int) throws(LongspanError) {
    try checkUsable()
    let bytes = try bytes(additional) { _, slots in
      let (sum, overflow) = slots.addingReportingOverflow(additional)
      return (sum, overflow)
    }
    try requireMemory(additional, bytes: bytes)
    for index in layers.indices {
      let needed = layers[index].slots + additional
      if needed > layers[index].memory.capacity { try grow(layer: index, to: needed) }
    }
  }

  /// Throws if what the policy keeps of `tokens` more tokens does not fit in memory.
  public mutating func requireMemory(forReading tokens: Int) throws(LongspanError) {
    try requireMemory(tokens, bytes: bytes(afterReading: tokens))
  }

  /// Bytes that what the policy keeps of `tokens` more tokens takes, beside those that were found free before.
  public func memoryNeeded(forReading tokens: Int) throws(LongspanError) -> Int {
    max(0, try bytes(afterReading: tokens) - checkedBytes)
  }

  private func bytes(afterReading tokens: Int) throws(LongspanError) -> Int {
    let (total, overflow) = count.addingReportingOverflow(tokens)
    guard tokens >= 0, !overflow else { throw Self.tooMany(count, tokens) }
    return try bytes(tokens) { layer, slots in
      (max(slots, policy.slots(afterReading: total, layer: layer)), false)
    }
  }

  private static func tooMany(_ count: Int, _ additional: Int) -> LongspanError {
    LongspanError(.overflow, "a cache of \(count) and \(additional) more tokens does not fit in 64 bits")
  }

  /// Bytes of the keys and values of all layers, with the slots that a closure gives for a layer and its present slots.
  private func bytes(
    _ additional: Int, _ slots: (Int, Int) -> (Int, Bool)
  ) throws(LongspanError) -> Int {
    guard additional >= 0 else { throw Self.tooMany(count, additional) }
    var bytes = 0
    for (index, layer) in layers.enumerated() {
      let (needed, overflow) = slots(index, layer.slots)
      let (product, overflowBytes) = needed.multipliedReportingOverflow(by: shape.layerBytesPerToken)
      let (sum, overflowSum) = bytes.addingReportingOverflow(product)
      guard !overflow, !overflowBytes, !overflowSum else { throw Self.tooMany(count, additional) }
      bytes = sum
    }
    return bytes
  }

  private mutating func requireMemory(_ additional: Int, bytes: Int) throws(LongspanError) {
    guard bytes > checkedBytes else { return }
    try SystemMemory.require(
      bytes - checkedBytes, for: "the keys and values of \(additional) more tokens")
    checkedBytes = bytes
  }

  private mutating func grow(layer index: Int, to needed: Int) throws(LongspanError) {
    let capacity = max(needed, 2 * layers[index].memory.capacity)
    let slots = layers[index].slots
    let hasPositions = layers[index].hasPositions
    guard isKnownUniquelyReferenced(&layers[index].memory) else {
      layers[index].memory = try layers[index].memory.copy(
        slots: slots, withPositions: hasPositions, capacity: capacity)
      return
    }
    var isMoving = false
    do throws(LongspanError) {
      layers[index].memory = try layers[index].memory.grown(
        to: capacity, slots: slots, withPositions: hasPositions, isMoving: &isMoving)
    } catch {
      // some pages have left the old reservation, so neither holds all tokens
      isLost = isMoving
      throw error
    }
  }

  /// Makes this cache the only owner of a layer's memory, before it is written to.
  mutating func own(layer index: Int) throws(LongspanError) {
    guard !isKnownUniquelyReferenced(&layers[index].memory) else { return }
    let layer = layers[index]
    try SystemMemory.require(
      layer.slots * shape.layerBytesPerToken, for: "a copy of layer \(index) of a cache that was forked")
    layers[index].memory = try layer.memory.copy(
      slots: layer.slots, withPositions: layer.hasPositions, capacity: layer.memory.capacity)
  }
}
