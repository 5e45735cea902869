import Foundation
import Longspan
import LongspanKernels
import Testing

@Suite struct KVCacheTests {
  /// Stores tokens in every layer, with numbers that tell their layer, kind, head and position.
  static func append(
    _ count: Int = 1, to cache: inout KVCache, on context: KernelContext, commits: Bool = true
  ) throws {
    let shape = cache.shape
    var workspace = Workspace()
    try cache.beginStep(count)
    for layer in 0..<shape.layers {
      let width = shape.headDimension
      func rows(_ kind: Int) -> [Float] {
        (cache.count..<cache.count + count).flatMap { position in
          (0..<shape.heads * width).map { mark(layer, kind, $0 / width, position) }
        }
      }
      let keys = rows(0)
      let values = rows(1)
      try cache.append(
        layer: layer, keys: TensorView(keys.span, tokens: count, heads: shape.heads, columns: width),
        values: TensorView(values.span, tokens: count, heads: shape.heads, columns: width), on: context)
    }
    if commits { try cache.commitStep(on: context, workspace: &workspace) } else { cache.abandonStep() }
  }

  static func mark(_ layer: Int, _ kind: Int, _ head: Int, _ position: Int) -> Float {
    // below 256, so that bf16 holds it exactly
    Float(position % 16 + 16 * (head + 2 * (kind + 2 * layer)))
  }

  /// The first channel of every slot of a head.
  static func row(
    _ cache: borrowing KVCache, layer: Int, kind: Int, head: Int, on context: KernelContext
  ) throws -> [Float] {
    let count = cache.lengths(layer: layer)[head]
    let width = cache.shape.headDimension
    var floats = [Float](repeating: -1, count: count * width)
    do {
      var span = floats.mutableSpan
      let layout = TensorLayout(tokens: count, columns: width)
      var output = try MutableTensorView(span.mutableBytes, layout)
      let view = try kind == 0 ? cache.keys(layer: layer) : cache.values(layer: layer)
      // only a head that is as long as the longest can be read whole
      #expect(view.layout.tokens >= count)
      try context.convert(view.head(head).first(count), into: &output)
    }
    for index in floats.indices { #expect(floats[index] == floats[index / width * width]) }
    return (0..<count).map { floats[$0 * width] }
  }

  /// Checks every stored number and position through the views that attention reads; `kept` are the positions of a head.
  static func check(
    _ cache: borrowing KVCache, keeps kept: ((_ layer: Int, _ head: Int) -> [Int])? = nil,
    on context: KernelContext
  ) throws {
    for layer in 0..<cache.shape.layers {
      for head in 0..<cache.shape.heads {
        let positions = kept?(layer, head) ?? Array(0..<cache.count)
        #expect(cache.lengths(layer: layer)[head] == positions.count)
        for kind in 0..<2 {
          #expect(
            try row(cache, layer: layer, kind: kind, head: head, on: context)
              == positions.map { mark(layer, kind, head, $0) }, "layer \(layer), head \(head), kind \(kind)")
        }
        for (slot, position) in positions.enumerated() {
          #expect(try cache.position(layer: layer, head: head, slot: slot) == position)
        }
      }
    }
  }

  static func makeCache(
    layers: Int = 2, heads: Int = 2, _ type: ElementType = .f32, capacity: Int = 1
  ) throws -> KVCache {
    try KVCache(
      KVShape(layers: layers, heads: heads, headDimension: 8, elementType: type), capacity: capacity)
  }

  @Test(arguments: ElementType.allCases) func keepsEveryTokenWhenItGrows(type: ElementType) throws {
    let context = try KernelContext(threads: 1)
    var cache = try Self.makeCache(type)
    #expect(cache.capacity(layer: 0) == 1024)
    for _ in 0..<40 { try Self.append(50, to: &cache, on: context) }
    #expect(cache.count == 2000)
    #expect(cache.capacity(layer: 1) == 2048)
    try Self.check(cache, on: context)
    try cache.reserve(9000)
    #expect(cache.capacity(layer: 0) >= 11000)
    try Self.check(cache, on: context)
    #expect(cache.byteCount == 2000 * 2 * 2 * 2 * 8 * type.byteCount)
    #expect(cache.byteCount == cache.count * cache.shape.bytesPerToken)
  }

  @Test func abandonedStepsLeaveNothing() throws {
    let context = try KernelContext(threads: 1)
    var cache = try Self.makeCache()
    try Self.append(3, to: &cache, on: context)
    try Self.append(2, to: &cache, on: context, commits: false)
    #expect(cache.count == 3)
    try Self.check(cache, on: context)
    try cache.truncate(to: 1)
    try Self.append(4, to: &cache, on: context)
    #expect(cache.count == 5)
    try Self.check(cache, on: context)
    cache.removeAll()
    #expect(cache.count == 0 && cache.byteCount == 0)
    try Self.append(2, to: &cache, on: context)
    try Self.check(cache, on: context)
  }

  /// A reservation of twice the machine's memory can only stand if its pages are not taken yet.
  @Test func memoryIsTakenOnlyForStoredTokens() throws {
    let context = try KernelContext(threads: 1)
    let shape = try KVShape(layers: 8, heads: 8, headDimension: 128)
    #expect(shape.bytesPerToken == 8 * 2 * 8 * 128 * 4)
    let tokens = 2 * (try MachineTopology().memoryBytes) / shape.bytesPerToken
    var cache = try KVCache(shape, capacity: tokens)
    try Self.append(to: &cache, on: context)
    #expect(cache.byteCount == shape.bytesPerToken)
  }

  @Test func listedSlotsStay() throws {
    let context = try KernelContext(threads: 1)
    var cache = try Self.makeCache(layers: 2)
    try Self.append(12, to: &cache, on: context)
    // sinks 0 and 1, then a list a head, then the last four
    let lists = SlotLists(indices: [2, 5, 7, 3, 4, 6], offsets: [0, 3, 6])
    try cache.compact(layer: 1, keeping: lists, from: 2, tail: 8, on: context)
    let kept = [[0, 1, 2, 5, 7, 8, 9, 10, 11], [0, 1, 3, 4, 6, 8, 9, 10, 11]]
    try Self.check(cache, keeps: { layer, head in layer == 0 ? Array(0..<12) : kept[head] }, on: context)
    #expect(cache.slots(layer: 0) == 12 && cache.slots(layer: 1) == 9)
    #expect(cache.mostSlots == 12)
    #expect(cache.byteCount == 2 * (12 + 9) * 2 * 8 * 4 + 2 * 9 * 4)
    #expect(cache.nextPosition(layer: 1) == 12)
    // tokens that come later follow in each layer, and positions survive growth
    try Self.append(2000, to: &cache, on: context)
    #expect(cache.capacity(layer: 1) >= 2009)
    let later = Array(12..<2012)
    try Self.check(
      cache, keeps: { layer, head in layer == 0 ? Array(0..<2012) : kept[head] + later }, on: context)
  }

  @Test func headsMayKeepDifferentNumbers() throws {
    let context = try KernelContext(threads: 2)
    var cache = try Self.makeCache(layers: 1)
    try Self.append(10, to: &cache, on: context)
    try cache.compact(
      layer: 0, keeping: SlotLists(indices: [1, 8, 9, 0, 2, 3, 6, 7, 9], offsets: [0, 3, 9]), from: 0,
      tail: 10,
      on: context)
    #expect(cache.lengths(layer: 0) == [3, 6])
    try Self.append(2, to: &cache, on: context)
    try Self.append(1, to: &cache, on: context)
    let kept = [[1, 8, 9, 10, 11, 12], [0, 2, 3, 6, 7, 9, 10, 11, 12]]
    try Self.check(cache, keeps: { _, head in kept[head] }, on: context)

    // attention takes each head's own keys
    var workspace = Workspace()
    let queries = (0..<16).map { Float($0 % 5) / 8 }
    var output = [Float](repeating: 0, count: 16)
    try cache.beginStep(1)
    try cache.append(
      layer: 0, keys: TensorView(queries.span, tokens: 1, heads: 2, columns: 8),
      values: TensorView(queries.span, tokens: 1, heads: 2, columns: 8), on: context)
    do {
      var span = output.mutableSpan
      try cache.attend(
        layer: 0, queries: TensorView(queries.span, tokens: 1, heads: 2, columns: 8), on: context,
        workspace: &workspace, into: &span)
    }
    try cache.commitStep(on: context, workspace: &workspace)
    for head in 0..<2 {
      let query = queries[head * 8..<head * 8 + 8]
      var weights: [Double] = []
      for position in kept[head] {
        let key = Double(Self.mark(0, 0, head, position))
        weights.append(query.reduce(0) { $0 + Double($1) * key } / 8.0.squareRoot())
      }
      weights.append(query.reduce(0) { $0 + Double($1) * Double($1) } / 8.0.squareRoot())
      let most = weights.max()!
      weights = weights.map { exp($0 - most) }
      for column in 0..<8 {
        var sum = weights.last! * Double(query[query.startIndex + column])
        for (weight, position) in zip(weights, kept[head]) {
          sum += weight * Double(Self.mark(0, 1, head, position))
        }
        let want = sum / weights.reduce(0, +)
        #expect(abs(Double(output[head * 8 + column]) - want) < 1e-4 * max(1, abs(want)))
      }
    }
  }

  @Test func forksGoTheirOwnWays() throws {
    let context = try KernelContext(threads: 1)
    var cache = try Self.makeCache()
    try Self.append(5, to: &cache, on: context)
    var fork = try cache.fork()
    try Self.append(3, to: &cache, on: context)
    #expect(cache.count == 8 && fork.count == 5)
    try Self.check(fork, on: context)
    try fork.truncate(to: 2)
    // positions 2 and 3 of the fork carry other marks than those of the cache would
    let lists = SlotLists(indices: [1], offsets: [0, 1])
    try fork.compact(layer: 0, keeping: lists, from: 0, tail: 2, on: context)
    try Self.append(1, to: &fork, on: context)
    try Self.check(fork, keeps: { layer, _ in layer == 0 ? [1, 2] : [0, 1, 2] }, on: context)
    try Self.check(cache, on: context)
    try Self.append(1100, to: &cache, on: context)
    try Self.check(cache, on: context)
    try Self.check(fork, keeps: { layer, _ in layer == 0 ? [1, 2] : [0, 1, 2] }, on: context)
  }

  @Test func snapshotsBringBackWhatWasGivenUp() throws {
    let context = try KernelContext(threads: 1)
    var cache = try Self.makeCache()
    try Self.append(6, to: &cache, on: context)
    let snapshot = try cache.snapshot()
    for layer in 0..<2 {
      try cache.compact(
        layer: layer, keeping: SlotLists(indices: [1, 3], offsets: [0, 2]), from: 0, tail: 5, on: context)
    }
    try Self.append(1, to: &cache, on: context)
    let error = #expect(throws: LongspanError.self) { try cache.truncate(to: 5) }
    #expect(error?.message.contains("compressed") == true)
    #expect(error?.message.contains("snapshot") == true)
    // what came after the compression can go
    try cache.truncate(to: 6)
    try Self.check(cache, keeps: { _, _ in [1, 3, 5] }, on: context)
    for _ in 0..<2 {
      try cache.restore(snapshot)
      #expect(cache.count == 6)
      try Self.check(cache, on: context)
      try Self.append(2, to: &cache, on: context)
      try Self.check(cache, on: context)
    }
    var other = try Self.makeCache(layers: 1)
    #expect(throws: LongspanError.self) { try other.restore(snapshot) }
    var compressed = try KVCache(cache.shape, policy: LagRelativeCompression(sink: 0, lag: 2))
    let mismatch = #expect(throws: LongspanError.self) { try compressed.restore(snapshot) }
    #expect(mismatch?.message.contains("lagkv:sink=0,lag=2") == true)
  }

  /// Gives up slots and then fails, after attention or before it.
  private struct FailingPolicy: KVCachePolicy {
    let failsBefore: Bool
    var description: String { "failing" }
    var positions: KVPositions { .absolute }
    func check(_ shape: KVShape) throws(LongspanError) {}
    func stepLength(limit: Int, in cache: borrowing KVCache) -> Int { limit }
    func slots(afterReading tokens: Int, layer: Int) -> Int { tokens }
    private func fail(_ cache: inout KVCache, _ context: KernelContext) throws(LongspanError) {
      let lists = SlotLists(indices: [1], offsets: [0, 1])
      try cache.compact(layer: 0, keeping: lists, from: 0, tail: cache.slots(layer: 0), on: context)
      throw LongspanError(.cancelled, "failed")
    }
    mutating func didAppend(
      layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) -> KVVisibility {
      if failsBefore { try fail(&cache, context) }
      return .all
    }
    mutating func didAttend(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) {
      if !failsBefore { try fail(&cache, context) }
    }
    mutating func didEndPrefill(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) {}
    mutating func reset() {}
  }

  @Test(arguments: [true, false]) func failedCompressionIsNotHidden(before: Bool) throws {
    let context = try KernelContext(threads: 1)
    var cache = try KVCache(
      KVShape(layers: 1, heads: 2, headDimension: 8), policy: FailingPolicy(failsBefore: before))
    let snapshot = try cache.snapshot()
    let rows = [Float](repeating: 1, count: 3 * 16)
    var output = rows
    var workspace = Workspace()
    try cache.beginStep(3)
    let error = #expect(throws: LongspanError.self) {
      try cache.append(
        layer: 0, keys: TensorView(rows.span, tokens: 3, heads: 2, columns: 8),
        values: TensorView(rows.span, tokens: 3, heads: 2, columns: 8), on: context)
      var span = output.mutableSpan
      try cache.attend(
        layer: 0, queries: TensorView(rows.span, tokens: 3, heads: 2, columns: 8), on: context,
        workspace: &workspace, into: &span)
      try cache.commitStep(on: context, workspace: &workspace)
    }
    #expect(error?.code == .cancelled)
    cache.abandonStep()
    let lost = #expect(throws: LongspanError.self) { try cache.beginStep(1) }
    #expect(lost?.message.contains("empty it or restore a snapshot") == true)
    #expect(throws: LongspanError.self) { _ = try cache.snapshot() }
    #expect(throws: LongspanError.self) { try cache.truncate(to: 0) }
    try cache.restore(snapshot)
    try cache.beginStep(1)
    cache.abandonStep()
    cache.removeAll()
    try cache.beginStep(1)
  }

  @Test func refusesWhatCannotBe() throws {
    let context = try KernelContext(threads: 1)
    #expect(throws: LongspanError.self) { _ = try KVShape(layers: 0, heads: 1, headDimension: 8) }
    #expect(throws: LongspanError.self) { _ = try KVShape(layers: 1, heads: 1, headDimension: 12) }
    #expect(throws: LongspanError.self) { _ = try KVShape(layers: 1 << 40, heads: 1 << 20, headDimension: 8) }
    let shape = try KVShape(layers: 1, heads: 1, headDimension: 8)
    #expect(throws: LongspanError.self) { _ = try KVCache(shape, capacity: Int.max) }
    #expect(throws: LongspanError.self) { _ = try KVCache(shape, capacity: 0) }
    let renumbering = try LagRelativeCompression(positions: .renumbered)
    #expect(throws: LongspanError.self) { _ = try KVCache(shape, policy: renumbering) }
    var cache = try KVCache(shape)
    let error = #expect(throws: LongspanError.self) { try cache.reserve(1 << 45) }
    #expect(error?.code == .insufficientMemory)
    #expect(throws: LongspanError.self) { try cache.reserve(Int.max) }
    #expect(throws: LongspanError.self) { try cache.reserve(-1) }
    #expect(throws: LongspanError.self) { try cache.requireMemory(forReading: 1 << 45) }
    #expect(throws: LongspanError.self) { try cache.beginStep(0) }
    #expect(throws: LongspanError.self) { try cache.truncate(to: 1) }
    #expect(throws: LongspanError.self) { _ = try cache.keys(layer: 1) }
    #expect(throws: LongspanError.self) { _ = try cache.keys(layer: 0, from: 1) }
    #expect(throws: LongspanError.self) { _ = try cache.position(layer: 0, head: 0, slot: 0) }
    var workspace = Workspace()
    #expect(throws: LongspanError.self) { try cache.commitStep(on: context, workspace: &workspace) }
    try cache.beginStep(2)
    #expect(throws: LongspanError.self) { try cache.beginStep(1) }
    #expect(throws: LongspanError.self) { _ = try cache.snapshot() }
    #expect(throws: LongspanError.self) { try cache.commitStep(on: context, workspace: &workspace) }
    let row = [Float](repeating: 0, count: 8)
    #expect(throws: LongspanError.self) {
      try cache.append(
        layer: 0, keys: TensorView(row.span, tokens: 1, columns: 8),
        values: TensorView(row.span, tokens: 1, columns: 8), on: context)
    }
    cache.abandonStep()
    try Self.append(3, to: &cache, on: context)
    for (indices, destination, tail) in [([2, 1], 0, 3), ([0], 1, 3), ([2], 0, 2), ([3], 0, 3), ([1], 0, 4)] {
      let lists = SlotLists(indices: indices.map(Int32.init), offsets: [0, Int64(indices.count)])
      #expect(throws: LongspanError.self) {
        try cache.compact(layer: 0, keeping: lists, from: destination, tail: tail, on: context)
      }
    }
    try Self.check(cache, on: context)
  }
}
