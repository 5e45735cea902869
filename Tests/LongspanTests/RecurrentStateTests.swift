import Longspan
import LongspanKernels
import Testing

@Suite struct RecurrentStateTests {
  private static func shape(states: [Int] = [4, 2]) throws -> RecurrentShape {
    try RecurrentShape(layers: 2, convolutionRows: 3, convolutionChannels: 4, stateDimensions: states)
  }

  /// Adds to every value of some layers within a step that is under way.
  private static func add(
    _ value: Float, to state: inout RecurrentState, layers: Range<Int> = 0..<2
  ) throws(LongspanError) {
    for layer in layers {
      try state.updateConvolution(layer: layer) { rows throws(LongspanError) in
        for index in 0..<rows.count { rows[index] += value + Float(layer) }
      }
      try state.updateState(layer: layer) { values throws(LongspanError) in
        for index in 0..<values.count { values[index] += 10 * value + Float(layer) }
      }
    }
  }

  /// Every value that the next step would see.
  private static func values(_ state: inout RecurrentState) throws -> [Float] {
    var found: [Float] = []
    try state.beginStep()
    for layer in 0..<state.shape.layers {
      try state.updateConvolution(layer: layer) { rows throws(LongspanError) in
        for index in 0..<rows.count { found.append(rows[index]) }
      }
      try state.updateState(layer: layer) { values throws(LongspanError) in
        for index in 0..<values.count { found.append(values[index]) }
      }
    }
    state.abandonStep()
    return found
  }

  private static func expected(_ sum: Float, steps: Float) -> [Float] {
    var values: [Float] = []
    for layer in [Float(0), 1] {
      values += Array(repeating: sum + steps * layer, count: 12)
      values += Array(repeating: 10 * sum + steps * layer, count: 8)
    }
    return values
  }

  @Test func stepsGoOnFromEachOther() throws {
    var state = try RecurrentState(Self.shape())
    #expect(state.byteCount == 2 * (12 + 8) * 4)
    #expect(try Self.values(&state) == Self.expected(0, steps: 0))
    for step in 1...3 {
      try state.beginStep()
      try Self.add(1, to: &state)
      try state.commitStep(5)
      #expect(state.count == 5 * step)
      #expect(try Self.values(&state) == Self.expected(Float(step), steps: Float(step)))
    }
    state.removeAll()
    #expect(state.count == 0)
    #expect(try Self.values(&state) == Self.expected(0, steps: 0))
  }

  @Test func anAbandonedStepLeavesNothing() throws {
    var state = try RecurrentState(Self.shape())
    try state.beginStep()
    try Self.add(1, to: &state)
    try state.commitStep(1)
    try state.beginStep()
    try Self.add(7, to: &state, layers: 0..<1)
    #expect(throws: LongspanError.self) { try state.commitStep(1) }
    #expect(throws: LongspanError.self) { try state.beginStep() }
    #expect(throws: LongspanError.self) { try Self.add(1, to: &state, layers: 0..<1) }
    #expect(throws: LongspanError.self) { _ = try state.snapshot() }
    state.abandonStep()
    #expect(state.count == 1)
    #expect(try Self.values(&state) == Self.expected(1, steps: 1))
    #expect(throws: LongspanError.self) { try Self.add(1, to: &state) }
    #expect(throws: LongspanError.self) { try state.commitStep(1) }
  }

  @Test func snapshotsAreOfOneShape() throws {
    var state = try RecurrentState(Self.shape())
    try state.beginStep()
    try Self.add(2, to: &state)
    try state.commitStep(3)
    let snapshot = try state.snapshot()
    try state.beginStep()
    try Self.add(1, to: &state)
    try state.commitStep(1)
    try state.restore(snapshot)
    #expect(state.count == 3)
    #expect(try Self.values(&state) == Self.expected(2, steps: 1))
    // the same number of states in another shape
    var other = try RecurrentState(Self.shape(states: [2, 2, 2]))
    #expect(throws: LongspanError.self) { try other.restore(snapshot) }
    #expect(other.count == 0)
  }

  @Test func shapesThatCannotBeAreRefused() {
    for (layers, rows, channels, states) in [
      (0, 3, 4, [4]), (2, 0, 4, [4]), (2, 3, -1, [4]), (2, 3, 4, []), (2, 3, 4, [4, 0]),
      (1 << 40, 3, 1 << 40, [4]),
      (2, 3, 4, [1 << 40, 1 << 40]),
    ] {
      #expect(throws: LongspanError.self) {
        try RecurrentShape(
          layers: layers, convolutionRows: rows, convolutionChannels: channels, stateDimensions: states)
      }
    }
  }
}
