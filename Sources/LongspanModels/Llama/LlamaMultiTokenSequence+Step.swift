import Longspan
import LongspanKernels

extension LlamaMultiTokenSequence {
  /// What a group reads in a step.
  private struct Reading {
    let group: LlamaLayerGroup
    /// Tokens of the step.
    let rows: Int
    /// Tokens that the group had read before.
    let before: Int

    init(_ group: LlamaLayerGroup, _ rows: Int) {
      self.group = group
      self.rows = rows
      before = group.cache.count
    }
  }

  /// Reads tokens in one step and returns their hidden states, `[T, hidden]`.
  ///
  /// - Parameter isOrdinary: gives the late layers the thinking layers' output at every position, as a model without the
  ///   schedule does, and makes the position after the step a head.
  /// - Throws: ``/LongspanKernels/LongspanError``; every group is as it was then, but for skipped tokens that the
  ///   thinking layers may have read in steps of their own, and unless a cache policy had begun to give up slots, which
  ///   later calls say.
  func step(
    _ tokens: [Int32], isOrdinary: Bool, _ workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    let rows = tokens.count
    guard rows > 0 else { throw LongspanError(.invalidArgument, "a model cannot read 0 tokens") }
    try checkUsable()
    var readings = [Reading(late, rows)]
    if let early { readings.append(Reading(early, rows)) }
    var thought = 0
    if let thinking {
      thought = isOrdinary ? rows : rowsThroughLastHead(of: rows)
      if thought > 0 {
        try refillWhatDoesNotFit(before: thought, thinking, &workspace)
        readings.append(Reading(thinking, count - thinking.cache.count + thought))
      }
    }
    do throws(LongspanError) {
      for reading in readings { try reading.group.begin(reading.rows) }
      var stream = try model.embeddings(of: tokens)
      var step = try LlamaModel.Step(configuration: model.configuration, count: rows)
      try early?.run(on: &stream, rows, &step, &workspace)
      var unread = thought > 0 ? [] : skipped
      if let thinking {
        Self.append(stream, thought..<rows, of: model.hiddenSize, to: &unread)
        if thought > 0 {
          try addThoughts(of: thinking, to: &stream, thought, isOrdinary: isOrdinary, &workspace)
        }
      }
      try late.run(on: &stream, rows, &step, &workspace)
      let hidden = try model.normalizeOutput(stream, rows, step)
      for reading in readings { try reading.group.commit(&workspace) }
      skipped = unread
      if isOrdinary { origin = count }
      return hidden
    } catch {
      takeBack(readings)
      throw error
    }
  }

  func checkUsable() throws(LongspanError) {
    guard !isLost else {
      throw LongspanError(
        .invalidArgument,
        "the sequence lost tokens in a step that failed after a cache was compressed: begin anew or restore a snapshot"
      )
    }
  }

  private func takeBack(_ readings: [Reading]) {
    for reading in readings {
      do throws(LongspanError) {
        try reading.group.takeBack(to: reading.before)
      } catch {
        isLost = true
      }
    }
  }

  /// Runs the thinking layers on the skipped tokens and the first `rows` of a step, and makes the early layers' output for
  /// the latter the late layers' input.
  ///
  /// - Parameter stream: `[at least rows, hidden]`. At heads, the thinking layers' output is added; in an ordinary pass it takes
  ///   the place of each row.
  private func addThoughts(
    of thinking: LlamaLayerGroup, to stream: inout AlignedBuffer<Float>, _ rows: Int, isOrdinary: Bool,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    let width = model.hiddenSize
    let lag = skipped.count / width
    var input = skipped
    Self.append(stream, 0..<rows, of: width, to: &input)
    let thought = try think(thinking, input, &workspace)
    let thoughts = thought.span
    var lateInput = stream.mutableSpan
    for row in 0..<rows where isOrdinary || decoding.isHead(count + row, origin: origin) {
      for column in 0..<width {
        let value = thoughts[(lag + row) * width + column]
        let place = row * width + column
        lateInput[place] = isOrdinary ? value : lateInput[place] + value
      }
    }
  }

  /// The thinking layers' output for rows of the early layers' output, `[T, hidden]`, in a step that was begun.
  private func think(
    _ thinking: LlamaLayerGroup, _ input: [Float], _ workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    var residual = try AlignedBuffer<Float>(count: input.count)
    var span = residual.mutableSpan
    for index in input.indices { span[index] = input[index] }
    let rows = input.count / model.hiddenSize
    var step = try LlamaModel.Step(configuration: model.configuration, count: rows)
    try thinking.run(on: &residual, rows, &step, &workspace)
    return residual
  }

  /// Has the thinking layers read skipped tokens until the others fit in one step with the next `rows` tokens, as their
  /// cache's policy limits steps.
  private func refillWhatDoesNotFit(
    before rows: Int, _ thinking: LlamaLayerGroup, _ workspace: inout Workspace
  ) throws(LongspanError) {
    while true {
      let lag = count - thinking.cache.count
      guard lag > 0, thinking.cache.stepLength(limit: lag + rows) < lag + rows else { return }
      let reading = Reading(thinking, thinking.cache.stepLength(limit: lag))
      let end = reading.rows * model.hiddenSize
      do throws(LongspanError) {
        try thinking.begin(reading.rows)
        _ = try think(thinking, Array(skipped[..<end]), &workspace)
        try thinking.commit(&workspace)
      } catch {
        takeBack([reading])
        throw error
      }
      skipped.removeFirst(end)
    }
  }

  private static func append(
    _ rows: borrowing AlignedBuffer<Float>, _ range: Range<Int>, of width: Int, to values: inout [Float]
  ) {
    let span = rows.span
    values.reserveCapacity(values.count + range.count * width)
    for index in range.lowerBound * width..<range.upperBound * width { values.append(span[index]) }
  }
}
