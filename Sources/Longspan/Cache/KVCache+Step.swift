import LongspanKernels

extension KVCache {
  /// The most tokens, at most `limit`, that the next step may have.
  public func stepLength(limit: Int) -> Int { min(limit, policy.stepLength(limit: limit, in: self)) }

  /// Begins to read `count` tokens.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if they are more than ``stepLength(limit:)`` allows, or there is no
  ///   memory for them.
  public mutating func beginStep(_ count: Int) throws(LongspanError) {
    guard count > 0 else {
      throw LongspanError(.invalidArgument, "a step of \(count) tokens: at least 1 is needed")
    }
    guard step == 0 else {
      throw LongspanError(
        .invalidArgument, "a step of \(step) tokens is under way: commit or abandon it first")
    }
    try checkUsable()
    let most = stepLength(limit: count)
    guard count <= most else {
      throw LongspanError(
        .invalidArgument, "\(policy): \(count) tokens cannot be read in one step here, only \(most)")
    }
    try reserve(count)
    step = count
    policyBeforeStep = policy
    isCompactedInStep = false
  }

  private func checkAppend(layer index: Int) throws(LongspanError) {
    try checkLayer(index)
    guard step > 0, layers[index].appended == 0 else {
      throw LongspanError(
        .invalidArgument,
        step == 0 ? "no step was begun" : "layer \(index) has the keys and values of this step already")
    }
  }

  /// Stores the keys and values of the step's tokens in a layer.
  ///
  /// - Parameters:
  ///   - keys: `[count, Hk, D]`, contiguous floats, not rotated.
  ///   - values: the same shape.
  ///   - table: angles of the positions from ``nextPosition(layer:)`` on.
  public mutating func append(
    layer index: Int, keys: borrowing TensorView, values: borrowing TensorView,
    rotatedBy table: borrowing RotaryTable, layout: RotaryLayout, on context: KernelContext
  ) throws(LongspanError) {
    try store(layer: index, kind: 0, keys) { source, target throws(LongspanError) in
      try context.rotate(source, by: table, layout: layout, into: &target)
    }
    try finishAppend(index, values, on: context)
  }

  /// Stores keys as they are.
  public mutating func append(
    layer index: Int, keys: borrowing TensorView, values: borrowing TensorView, on context: KernelContext
  ) throws(LongspanError) {
    try store(layer: index, kind: 0, keys) { source, target throws(LongspanError) in
      try context.convert(source, into: &target)
    }
    try finishAppend(index, values, on: context)
  }

  private mutating func store(
    layer index: Int, kind: Int, _ source: borrowing TensorView,
    _ write: (borrowing TensorView, inout MutableTensorView) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try checkAppend(layer: index)
    let from = source.layout
    guard from.tokens == step, from.heads == shape.heads, from.columns == shape.headDimension else {
      throw LongspanError(
        .badShape,
        "\(from.tokens) x \(from.heads) x \(from.columns) are not the keys or values of \(step) tokens in "
          + "\(shape.heads) heads of \(shape.headDimension)")
    }
    try own(layer: index)
    let layer = layers[index]
    if layer.isRagged {
      for head in 0..<shape.heads {
        let first = layer.lengths[head]
        try layer.memory.write(layer.memory.place(kind: kind, head: head, first..<first + step)) {
          target throws(LongspanError) in try write(source.head(head), &target)
        }
      }
    } else {
      let first = layer.slots
      try layer.memory.write(layer.memory.place(kind: kind, first..<first + step)) {
        target throws(LongspanError) in try write(source, &target)
      }
    }
  }

  /// What follows the keys: values, positions, and the slots' being in use.
  private mutating func finishAppend(
    _ index: Int, _ values: borrowing TensorView, on context: KernelContext
  ) throws(LongspanError) {
    try store(layer: index, kind: 1, values) { source, target throws(LongspanError) in
      try context.convert(source, into: &target)
    }
    let layer = layers[index]
    if layer.hasPositions {
      for head in 0..<shape.heads {
        try layer.memory.writePositions(head: head, from: layer.lengths[head], count..<count + step)
      }
    }
    for head in 0..<shape.heads { layers[index].lengths[head] += step }
    layers[index].appended = step
  }

  /// Attention of the step's queries over a layer's keys, as far as the policy lets them see.
  ///
  /// - Parameters:
  ///   - queries: `[count, Hq, D]`, rotated to positions from ``nextPosition(layer:)`` on.
  ///   - output: `[count, Hq, D]`.
  public mutating func attend(
    layer: Int, queries: borrowing TensorView, on context: KernelContext, workspace: inout Workspace,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try checkLayer(layer)
    guard step > 0, layers[layer].appended == step else {
      throw LongspanError(.invalidArgument, "layer \(layer) has no keys and values of this step yet")
    }
    var policy = policy
    let visibility = try policy.didAppend(layer: layer, to: &self, on: context, workspace: &workspace)
    self.policy = policy
    switch visibility {
    case .all:
      let lengths = layers[layer].isRagged ? layers[layer].lengths.map(Int64.init) : []
      let batch = RaggedBatch(
        queryOffsets: [0, Int64(step)], keyOffsets: [0, Int64(layers[layer].slots)], keyLengths: lengths)
      try context.attend(
        step <= Self.decodeTokens ? .decode : .prefill, queries: queries, keys: keys(layer: layer),
        values: values(layer: layer), batch: batch, workspace: &workspace, into: &output)
    case .lagWindows(let windows):
      try context.attend(
        through: windows, queries: queries, keys: keys(layer: layer), values: values(layer: layer),
        workspace: &workspace, into: &output)
    }
  }

  /// Tokens up to which attention splits keys instead of query rows.
  private static let decodeTokens = 8

  /// Makes the step's tokens part of the cache, once every layer has had its attention, and lets the policy give up slots.
  ///
  /// If this throws, the cache may have lost tokens, which later calls then say.
  public mutating func commitStep(on context: KernelContext, workspace: inout Workspace) throws(LongspanError)
  {
    guard step > 0, layers.allSatisfy({ $0.appended == step }) else {
      throw LongspanError(
        .invalidArgument,
        step == 0 ? "no step was begun" : "not every layer has the keys and values of this step")
    }
    count += step
    step = 0
    policyBeforeStep = nil
    for index in layers.indices { layers[index].appended = 0 }
    if isCompactedInStep { lastCompaction = count }
    try withPolicy { policy, cache throws(LongspanError) in
      try policy.didAttend(in: &cache, on: context, workspace: &workspace)
    }
  }

  /// Takes a step back that failed. A policy that had given up slots within the step leaves a cache that can only be
  /// emptied or restored.
  public mutating func abandonStep() {
    guard step > 0 else { return }
    if isCompactedInStep { isLost = true }
    for index in layers.indices {
      for head in 0..<shape.heads { layers[index].lengths[head] -= layers[index].appended }
      layers[index].appended = 0
    }
    if let policyBeforeStep { policy = policyBeforeStep }
    policyBeforeStep = nil
    step = 0
  }

  /// Says that the steps from now on read a prompt.
  public mutating func beginPrefill() { phase = .prefill }

  /// Says that a prompt was read whole, and lets the policy give up slots.
  public mutating func endPrefill(on context: KernelContext, workspace: inout Workspace) throws(LongspanError)
  {
    phase = .decode
    try checkUsable()
    try withPolicy { policy, cache throws(LongspanError) in
      try policy.didEndPrefill(in: &cache, on: context, workspace: &workspace)
    }
  }

  /// Runs what may give up slots; if it fails halfway, the cache is lost.
  private mutating func withPolicy(
    _ body: (inout any KVCachePolicy, inout KVCache) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    var policy = policy
    isCompactedInStep = false
    do throws(LongspanError) {
      try body(&policy, &self)
    } catch {
      isLost = isCompactedInStep
      throw error
    }
    self.policy = policy
  }

  /// The keys of a layer, `[slots, Hk, D]`, from a slot on.
  @_lifetime(borrow self)
  public func keys(layer: Int, from slot: Int = 0) throws(LongspanError) -> TensorView {
    try rows(layer: layer, kind: 0, from: slot)
  }

  /// The values of a layer, `[slots, Hk, D]`, from a slot on.
  @_lifetime(borrow self)
  public func values(layer: Int, from slot: Int = 0) throws(LongspanError) -> TensorView {
    try rows(layer: layer, kind: 1, from: slot)
  }

  @_lifetime(borrow self)
  private func rows(layer index: Int, kind: Int, from slot: Int) throws(LongspanError) -> TensorView {
    try checkLayer(index)
    let layer = layers[index]
    guard slot >= 0, slot <= layer.slots else {
      throw LongspanError(.badIndex, "slot \(slot) is outside the \(layer.slots) of layer \(index)")
    }
    let place = layer.memory.place(kind: kind, slot..<layer.slots)
    let memory = layer.memory.memory
    let bytes = try memory.bytes(place.byteOffset..<memory.byteCount)
    let view = try TensorView(bytes, place.layout)
    // the memory is this cache's, and stays as it is while the cache is borrowed
    return _overrideLifetime(view, borrowing: self)
  }
}
